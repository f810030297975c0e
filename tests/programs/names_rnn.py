"""Classifying names with a character-level RNN, one name a step, one-hot letters written element by element."""
import random
import string

import torch
import torch.nn as nn

random.seed(0)
torch.manual_seed(0)
all_letters = string.ascii_letters + " .,;'"
n_letters = len(all_letters)
category_lines = {
    'Italian': 'Abandonato Abatangelo Adamo Agosti Bellandini Brambani Cavallo Endrizzi Esposito Ferrari Giordano Marchetti'.split(),
    'Russian': 'Abakumov Balakirev Chekhov Dostoevsky Gagarin Ivanov Kuznetsov Lebedev Pavlov Romanov Smirnov Vasiliev'.split(),
    'Japanese': 'Abe Fujimoto Hashimoto Ikeda Kobayashi Matsumoto Nakamura Okada Sasaki Tanaka Watanabe Yamada'.split(),
    'Scottish': "Aitken Black Campbell Duncan Fraser Hamilton Kerr MacDonald McKenzie Ross Stewart O'Wallace".split(),
}
all_categories = list(category_lines)
n_categories = len(all_categories)


def lineToTensor(line):
    tensor = torch.zeros(len(line), 1, n_letters)
    for li, letter in enumerate(line):
        tensor[li][0][all_letters.find(letter)] = 1
    return tensor


class RNN(nn.Module):
    def __init__(self, input_size, hidden_size, output_size):
        super(RNN, self).__init__()
        self.hidden_size = hidden_size
        self.i2h = nn.Linear(input_size, hidden_size)
        self.h2h = nn.Linear(hidden_size, hidden_size)
        self.h2o = nn.Linear(hidden_size, output_size)
        self.softmax = nn.LogSoftmax(dim=1)

    def forward(self, input, hidden):
        hidden = torch.tanh(self.i2h(input) + self.h2h(hidden))
        output = self.h2o(hidden)
        return self.softmax(output), hidden

    def initHidden(self):
        return torch.zeros(1, self.hidden_size)


def categoryFromOutput(output):
    top_n, top_i = output.topk(1)
    category_i = top_i[0].item()
    return all_categories[category_i], category_i


def randomTrainingExample():
    category = random.choice(all_categories)
    line = random.choice(category_lines[category])
    category_tensor = torch.tensor([all_categories.index(category)], dtype=torch.long)
    return category, line, category_tensor, lineToTensor(line)


rnn = RNN(n_letters, 96, n_categories)
criterion = nn.NLLLoss()
learning_rate = 0.01


def train(category_tensor, line_tensor):
    hidden = rnn.initHidden()
    rnn.zero_grad()
    for i in range(line_tensor.size()[0]):
        output, hidden = rnn(line_tensor[i], hidden)
    loss = criterion(output, category_tensor)
    loss.backward()
    for p in rnn.parameters():
        p.data.add_(p.grad.data, alpha=-learning_rate)
    return output, loss.item()


current_loss, all_losses = 0, []
for iter in range(1, 601):
    category, line, category_tensor, line_tensor = randomTrainingExample()
    output, loss = train(category_tensor, line_tensor)
    current_loss += loss
    if iter % 100 == 0:
        all_losses.append(current_loss / 100)
        guess, guess_i = categoryFromOutput(output)
        print(iter, 'a category', guess in all_categories)
        current_loss = 0
print('loss falls', all_losses[-1] < all_losses[0])
