"""Knowledge distillation: three students of different widths learn from a teacher's soft targets, temperature falling by epoch."""
import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
X, y = load_digits(return_X_y=True)
X, y = torch.tensor(X / 16, dtype=torch.float32), torch.tensor(y)
train_set, val_set = TensorDataset(X[:1200], y[:1200]), TensorDataset(X[1200:], y[1200:])


class Teacher(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Linear(64, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Dropout(0.3), nn.Linear(256, 128), nn.ReLU())
        self.classifier = nn.Linear(128, 10)

    def forward(self, x):
        return self.classifier(self.features(x))


class Student(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc1 = nn.Linear(64, width)
        self.fc2 = nn.Linear(width, 10)

    def forward(self, x):
        return self.fc2(F.relu(self.fc1(x)))


def distillation_loss(student_logits, teacher_logits, labels, T, alpha):
    soft = nn.KLDivLoss(reduction='batchmean')(F.log_softmax(student_logits / T, dim=1), F.softmax(teacher_logits / T, dim=1))
    hard = F.cross_entropy(student_logits, labels, label_smoothing=0.05)
    return alpha * T * T * soft + (1 - alpha) * hard


def accuracy(model):
    model.eval()
    hits = torch.cat([model(xb).argmax(dim=1) == yb for xb, yb in DataLoader(val_set, batch_size=256)])
    return hits.float().mean().item()


teacher = Teacher()
optimizer = torch.optim.Adam(teacher.parameters(), lr=2e-3)
for epoch in range(5):
    teacher.train()
    for xb, yb in DataLoader(train_set, batch_size=64, shuffle=True):
        optimizer.zero_grad()
        loss = F.cross_entropy(teacher(xb), yb)
        loss.backward()
        optimizer.step()
with torch.no_grad():
    print('teacher parameters', sum(p.numel() for p in teacher.parameters()), 'accuracy above 0.8:', accuracy(teacher) > 0.8)
teacher.eval()
teacher.requires_grad_(False)
for width in (16, 24, 48):
    student = Student(width)
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.8)
    for epoch in range(4):
        T = 5.0 - epoch
        student.train()
        for xb, yb in DataLoader(train_set, batch_size=96, shuffle=True):
            with torch.no_grad():
                teacher_logits = teacher(xb)
            loss = distillation_loss(student(xb), teacher_logits, yb, T, alpha=0.7)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        scheduler.step()
    with torch.no_grad():
        print('student', width, 'parameters', sum(p.numel() for p in student.parameters()), 'accuracy above 0.5:', accuracy(student) > 0.5)
