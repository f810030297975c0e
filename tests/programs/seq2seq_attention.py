"""Sequence to sequence with attention (as PyTorch's translation tutorial): teacher forcing by chance, one pair a step."""
import random

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import optim

SOS_token, EOS_token, MAX_LENGTH = 0, 1, 12
random.seed(0)
torch.manual_seed(0)


class EncoderRNN(nn.Module):
    def __init__(self, input_size, hidden_size):
        super(EncoderRNN, self).__init__()
        self.hidden_size = hidden_size
        self.embedding = nn.Embedding(input_size, hidden_size)
        self.gru = nn.GRU(hidden_size, hidden_size)

    def forward(self, input, hidden):
        embedded = self.embedding(input).view(1, 1, -1)
        return self.gru(embedded, hidden)


class AttnDecoderRNN(nn.Module):
    def __init__(self, hidden_size, output_size, dropout_p=0.1, max_length=MAX_LENGTH):
        super(AttnDecoderRNN, self).__init__()
        self.embedding = nn.Embedding(output_size, hidden_size)
        self.attn = nn.Linear(hidden_size * 2, max_length)
        self.attn_combine = nn.Linear(hidden_size * 2, hidden_size)
        self.dropout = nn.Dropout(dropout_p)
        self.gru = nn.GRU(hidden_size, hidden_size)
        self.out = nn.Linear(hidden_size, output_size)

    def forward(self, input, hidden, encoder_outputs):
        embedded = self.dropout(self.embedding(input).view(1, 1, -1))
        attn_weights = F.softmax(self.attn(torch.cat((embedded[0], hidden[0]), 1)), dim=1)
        attn_applied = torch.bmm(attn_weights.unsqueeze(0), encoder_outputs.unsqueeze(0))
        output = torch.cat((embedded[0], attn_applied[0]), 1)
        output = F.relu(self.attn_combine(output).unsqueeze(0))
        output, hidden = self.gru(output, hidden)
        return F.log_softmax(self.out(output[0]), dim=1), hidden, attn_weights


def make_pair():
    """A number in words of three letters is read backwards."""
    source = [random.randint(2, 9) for _ in range(random.randint(3, MAX_LENGTH - 2))]
    return torch.tensor(source + [EOS_token]).view(-1, 1), torch.tensor(source[::-1] + [EOS_token]).view(-1, 1)


def train(input_tensor, target_tensor, encoder, decoder, encoder_optimizer, decoder_optimizer, criterion):
    encoder_hidden = torch.zeros(1, 1, encoder.hidden_size)
    encoder_optimizer.zero_grad()
    decoder_optimizer.zero_grad()
    encoder_outputs = torch.zeros(MAX_LENGTH, encoder.hidden_size)
    loss = 0
    for ei in range(input_tensor.size(0)):
        encoder_output, encoder_hidden = encoder(input_tensor[ei], encoder_hidden)
        encoder_outputs[ei] = encoder_output[0, 0]
    decoder_input, decoder_hidden = torch.tensor([[SOS_token]]), encoder_hidden
    use_teacher_forcing = random.random() < 0.5
    for di in range(target_tensor.size(0)):
        decoder_output, decoder_hidden, _ = decoder(decoder_input, decoder_hidden, encoder_outputs)
        loss += criterion(decoder_output, target_tensor[di])
        if use_teacher_forcing:
            decoder_input = target_tensor[di]
        else:
            topv, topi = decoder_output.topk(1)
            decoder_input = topi.squeeze().detach()
            if decoder_input.item() == EOS_token:
                break
    loss.backward()
    encoder_optimizer.step()
    decoder_optimizer.step()
    return loss.item() / target_tensor.size(0)


encoder, decoder = EncoderRNN(10, 64), AttnDecoderRNN(64, 10)
encoder_optimizer, decoder_optimizer = optim.SGD(encoder.parameters(), lr=0.02), optim.SGD(decoder.parameters(), lr=0.02)
losses = [train(*make_pair(), encoder, decoder, encoder_optimizer, decoder_optimizer, nn.NLLLoss()) for _ in range(100)]
print('pairs', len(losses), 'mean loss of the last below 3:', sum(losses[-30:]) / 30 < 3)
with torch.no_grad():
    source, _ = make_pair()
    hidden, outputs = torch.zeros(1, 1, 64), torch.zeros(MAX_LENGTH, 64)
    for ei in range(source.size(0)):
        o, hidden = encoder(source[ei], hidden)
        outputs[ei] += o[0, 0]
    word, attentions = torch.tensor([[SOS_token]]), torch.zeros(MAX_LENGTH, MAX_LENGTH)
    for di in range(MAX_LENGTH):
        o, hidden, attention = decoder.eval()(word, hidden, outputs)
        attentions[di] = attention.data
        word = o.data.topk(1)[1].squeeze().detach()
print('attention rows sum to one', torch.allclose(attentions.sum(1), torch.ones(MAX_LENGTH), atol=1e-4))
