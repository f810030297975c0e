"""K-means with tensors for several k, until nothing moves, and PCA by SVD and by power iteration: no gradients at all."""
import torch
from sklearn.datasets import load_digits, load_iris


def kmeans_plus_plus(x, k):
    centers = [x[torch.randint(len(x), (1,)).item()]]
    for _ in range(k - 1):
        distance = torch.cdist(x, torch.stack(centers)).min(dim=1).values ** 2
        centers.append(x[torch.multinomial(distance / distance.sum(), 1).item()])
    return torch.stack(centers)


def kmeans(x, k, max_iter=50):
    centers = kmeans_plus_plus(x, k)
    for iteration in range(max_iter):
        assignment = torch.cdist(x, centers).argmin(dim=1)
        new = centers.clone()
        for c in range(k):
            members = x[assignment == c]
            if len(members) > 0:
                new[c] = members.mean(dim=0)
        moved = (new - centers).norm()
        centers = new
        if moved < 1e-4:
            break
    inertia = (x - centers[assignment]).pow(2).sum().item()
    return assignment, centers, inertia, iteration + 1


def purity(assignment, labels, k):
    total = 0
    for c in range(k):
        inside = labels[assignment == c]
        if inside.numel():
            total += torch.bincount(inside).max().item()
    return total / len(labels)


def pca(x, n):
    centered = x - x.mean(0)
    u, s, vh = torch.linalg.svd(centered, full_matrices=False)
    return centered @ vh[:n].T, s[:n] ** 2 / (s ** 2).sum()


def power_iteration(x, n):
    centered = x - x.mean(0)
    cov, vectors, values = centered.T @ centered / (len(x) - 1), [], []
    for _ in range(n):
        v = torch.randn(cov.shape[0])
        v /= v.norm()
        for _ in range(500):
            w = cov @ v
            value = w.norm()
            w = w / value
            if (w - v).abs().max() < 1e-5:
                break
            v = w
        vectors.append(v)
        values.append(value.item())
        cov = cov - value * torch.outer(v, v)
    return torch.stack(vectors), values


torch.manual_seed(0)
iris, digits = load_iris(), load_digits()
for name, data in (('iris', iris), ('digits', digits)):
    x, y = torch.tensor(data.data, dtype=torch.float32), torch.tensor(data.target)
    projected, explained = pca(x, 4)
    vectors, values = power_iteration(x, 2)
    full = torch.linalg.eigvalsh(torch.cov(x.T)).flip(0)[:2]
    print(name, 'explained', [round(e, 2) for e in explained.tolist()], 'eigenvalues agree', torch.allclose(torch.tensor(values), full, rtol=1e-2))
    inertias = []
    for k in (2, 3, 5, 8, 10):
        best = min((kmeans(projected, k) for _ in range(3)), key=lambda r: r[2])
        inertias.append(best[2])
    print(name, 'inertia falls', all(a > b for a, b in zip(inertias, inertias[1:])), 'purity above one half', purity(best[0], y, 10) > 0.5)
