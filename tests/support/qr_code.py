"""Reads a QR code as ISO/IEC 18004 describes it, without the library that draws it: modules → text. Errors
are not corrected: a wrong module gives a wrong text.
"""

import re

# By level and version: the data bytes of every block.
BLOCKS = {
    "L": {1: [19], 2: [34], 3: [55], 4: [80], 5: [108], 6: [68] * 2},
    "M": {1: [16], 2: [28], 3: [44], 4: [32] * 2, 5: [43] * 2, 6: [27] * 4, 7: [31] * 4,
          8: [38, 38, 39, 39]},
    "Q": {1: [13], 2: [22], 3: [17] * 2, 4: [24] * 2, 5: [15, 15, 16, 16], 6: [19] * 4},
    "H": {1: [9], 2: [16], 3: [13] * 2, 4: [9] * 4, 5: [11, 11, 12, 12], 6: [15] * 4},
}  # fmt: skip
ALIGNMENT = {
    2: [6, 18],
    3: [6, 22],
    4: [6, 26],
    5: [6, 30],
    6: [6, 34],
    7: [6, 22, 38],
    8: [6, 24, 42],
}
LEVELS = {0b01: "L", 0b00: "M", 0b11: "Q", 0b10: "H"}
MASKS = [
    lambda y, x: (y + x) % 2,
    lambda y, x: y % 2,
    lambda y, x: x % 3,
    lambda y, x: (y + x) % 3,
    lambda y, x: (y // 2 + x // 3) % 2,
    lambda y, x: y * x % 2 + y * x % 3,
    lambda y, x: (y * x % 2 + y * x % 3) % 2,
    lambda y, x: ((y + x) % 2 + y * x % 3) % 2,
]


def modules(size, path):
    """The modules that an SVG path of rectangles fills, one a unit high."""
    dark = [[0] * size for _ in range(size)]
    for x, y, length in re.findall(r"M(\d+) (\d+)h(\d+)v1h-\d+z", path):
        for i in range(int(length)):
            dark[int(y)][int(x) + i] = 1
    return dark


def reserved(size, version):
    """Which modules hold no data: finders, timing, alignment, format and version."""
    taken = [[y == 6 or x == 6 for x in range(size)] for y in range(size)]
    for rows, columns in (((0, 9), (0, 9)), ((0, 9), (size - 8, size)), ((size - 8, size), (0, 9))):
        for y in range(*rows):
            for x in range(*columns):
                taken[y][x] = True
    centres = ALIGNMENT.get(version, [])
    for cy in centres:
        for cx in centres:
            if (cy, cx) not in ((6, 6), (6, size - 7), (size - 7, 6)):
                for y in range(cy - 2, cy + 3):
                    for x in range(cx - 2, cx + 3):
                        taken[y][x] = True
    if version >= 7:
        for i in range(6):
            for j in range(size - 11, size - 8):
                taken[i][j] = taken[j][i] = True
    return taken


def decode(dark):
    """The text of a QR code in byte mode."""
    size = len(dark)
    version = (size - 17) // 4
    places = [(8, x) for x in (0, 1, 2, 3, 4, 5, 7, 8)] + [(y, 8) for y in (7, 5, 4, 3, 2, 1, 0)]
    information = int("".join(str(dark[y][x]) for y, x in places), 2) ^ 0b101010000010010
    level, mask = LEVELS[information >> 13], MASKS[information >> 10 & 7]
    taken, bits, upwards = reserved(size, version), [], True
    for right in (*range(size - 1, 6, -2), 5, 3, 1):
        for y in range(size - 1, -1, -1) if upwards else range(size):
            bits += [dark[y][x] ^ (not mask(y, x)) for x in (right, right - 1) if not taken[y][x]]
        upwards = not upwards
    words = [
        int("".join(str(int(bit)) for bit in bits[i : i + 8]), 2) for i in range(0, len(bits), 8)
    ]
    lengths = BLOCKS[level][version]
    blocks, at = [[] for _ in lengths], 0
    for i in range(max(lengths)):
        for block, length in zip(blocks, lengths):
            if i < length:
                block.append(words[at])
                at += 1
    data = "".join(f"{word:08b}" for block in blocks for word in block)
    assert data[:4] == "0100", "not in byte mode"
    count = int(data[4:12], 2)
    return bytes(int(data[12 + 8 * i : 20 + 8 * i], 2) for i in range(count)).decode()
