"""A matrix as a list of lists, whose numbers are computed anew in place."""
from load import run

N = 400
MATRIX = [[float(i * j % 17) for j in range(N)] for i in range(N)]


def step(number):
    for i in range(N):
        row = MATRIX[i]
        for j in range(N):
            row[j] = (row[j] * 1.5 + MATRIX[j][i]) % 97.0


run(step)
