"""The objective once more, in float64 NumPy and plain loops over sequences and tokens: what the tests compare with.

Written from the equations alone. A sequence is the list of its completion tokens; padding does not exist here, so these
functions take the mask only to drop what it leaves out.
"""

import math

import numpy as np


def sequences_of(values_BT, mask_BT):
    """The real entries of each row, as one float64 list a sequence."""
    return [
        [float(value) for value, real in zip(row, row_mask, strict=True) if real]
        for row, row_mask in zip(np.asarray(values_BT, np.float64), np.asarray(mask_BT), strict=True)
    ]


def padded(sequences, mask_BT, fill=0.0):
    """Sequences put back where their mask has them, in a float64 BT array with `fill` elsewhere."""
    mask_BT = np.asarray(mask_BT).astype(bool)
    result = np.full(mask_BT.shape, fill, np.float64)
    for row, sequence in enumerate(sequences):
        for position, value in zip(np.flatnonzero(mask_BT[row]), sequence, strict=True):
            result[row, position] = value
    return result


def lookahead_min(entropy_BT, mask_BT, window):
    ahead = []
    for sequence in sequences_of(entropy_BT, mask_BT):
        ahead.append([min(sequence[t : t + window + 1]) for t in range(len(sequence))])
    return padded(ahead, mask_BT)


def entropy_maximum(entropy_BT, mask_BT, *, window=0, denominator="raw"):
    if denominator == "lookahead":
        entropy_BT = lookahead_min(entropy_BT, mask_BT, window)
    largest = 1.0
    for sequence in sequences_of(entropy_BT, mask_BT):
        for entropy in sequence:
            largest = max(largest, entropy)
    return largest


def entropy_gate(
    entropy_BT,
    mask_BT,
    *,
    gamma,
    window=0,
    floor=0.1,
    scope="batch",
    denominator="raw",
    vocab_size=None,
    entropy_max=None,
):
    batch_max = max(1.0, entropy_max) if entropy_max is not None else None
    if batch_max is None:
        batch_max = entropy_maximum(entropy_BT, mask_BT, window=window, denominator=denominator)
    omega = []
    ahead_BT = lookahead_min(entropy_BT, mask_BT, window)
    for row, sequence in enumerate(sequences_of(ahead_BT, mask_BT)):
        if scope == "batch":
            divisor = batch_max
        elif scope == "sequence":
            divisor = entropy_maximum(
                np.asarray(entropy_BT)[row : row + 1],
                np.asarray(mask_BT)[row : row + 1],
                window=window,
                denominator=denominator,
            )
        else:
            divisor = math.log(vocab_size)
        omega.append([min(max(1.0 - gamma * entropy / divisor, floor), 1.0) for entropy in sequence])
    return padded(omega, mask_BT)


def sign(number):
    return float(number > 0) - float(number < 0)


def unclipped_ratio(student_logp_BT, teacher_logp_BT, advantage_B, mask_BT):
    ratios = []
    students, teachers = sequences_of(student_logp_BT, mask_BT), sequences_of(teacher_logp_BT, mask_BT)
    for student, teacher, advantage in zip(students, teachers, np.asarray(advantage_B, np.float64), strict=True):
        ratios.append([math.exp(sign(advantage) * (t - s)) for s, t in zip(student, teacher, strict=True)])
    return padded(ratios, mask_BT)


def ratio_weight(student_logp_BT, teacher_logp_BT, advantage_B, mask_BT, *, epsilon=0.2):
    ratio_BT = unclipped_ratio(student_logp_BT, teacher_logp_BT, advantage_B, mask_BT)
    clipped = [
        [min(max(ratio, 1.0 - epsilon), 1.0 + epsilon) for ratio in row] for row in sequences_of(ratio_BT, mask_BT)
    ]
    return padded(clipped, mask_BT)


def coefficients(
    student_logp_BT, teacher_logp_BT, teacher_entropy_BT, advantage_B, mask_BT, *, epsilon=0.2, **gate_options
):
    """`A w omega` of each token: the constant that multiplies its log-probability."""
    weight_BT = ratio_weight(student_logp_BT, teacher_logp_BT, advantage_B, mask_BT, epsilon=epsilon)
    omega_BT = entropy_gate(teacher_entropy_BT, mask_BT, **gate_options)
    result = np.zeros(weight_BT.shape)
    for row, advantage in enumerate(np.asarray(advantage_B, np.float64)):
        for t in range(result.shape[1]):
            if np.asarray(mask_BT)[row, t]:
                result[row, t] = advantage * weight_BT[row, t] * omega_BT[row, t]
    return result


def reduced(values_BT, mask_BT, reduction):
    """Mean over all tokens, or over non-empty sequences of their own means; 0 of nothing."""
    sequences = [sequence for sequence in sequences_of(values_BT, mask_BT) if sequence]
    if not sequences:
        return 0.0
    if reduction == "token":
        tokens = [value for sequence in sequences for value in sequence]
        return math.fsum(tokens) / len(tokens)
    return math.fsum(math.fsum(sequence) / len(sequence) for sequence in sequences) / len(sequences)


def policy_loss(coefficient_BT, student_logp_BT, mask_BT, reduction="token"):
    """`-mean(coefficient log p)` with the coefficients held fixed."""
    mask_BT = np.asarray(mask_BT).astype(bool)
    logp_BT = np.where(mask_BT, np.asarray(student_logp_BT, np.float64), 0.0)
    return -reduced(coefficient_BT * logp_BT, mask_BT, reduction)


def policy_gradient(coefficient_BT, mask_BT, reduction="token"):
    """The gradient of `policy_loss` by the log-probabilities, by hand: minus each coefficient over its divisor."""
    mask_BT = np.asarray(mask_BT).astype(bool)
    gradient = np.zeros(mask_BT.shape)
    tokens, sequences = mask_BT.sum(), mask_BT.any(axis=1).sum()
    for row, length in enumerate(mask_BT.sum(axis=1)):
        for t in range(mask_BT.shape[1]):
            if mask_BT[row, t]:
                divisor = tokens if reduction == "token" else sequences * length
                gradient[row, t] = -coefficient_BT[row, t] / divisor
    return gradient


def finite_difference_gradient(coefficient_BT, student_logp_BT, mask_BT, reduction="token", step=1e-4):
    """Central differences of `policy_loss` at each position, padding included."""
    gradient = np.zeros(np.shape(mask_BT))
    for index in np.ndindex(gradient.shape):
        up, down = (np.array(student_logp_BT, np.float64) for _ in range(2))
        up[index] += step
        down[index] -= step
        rise = policy_loss(coefficient_BT, up, mask_BT, reduction) - policy_loss(
            coefficient_BT, down, mask_BT, reduction
        )
        gradient[index] = rise / (2 * step)
    return gradient


def shaped_reward(correct_B, length_B, *, max_length, beta=0.5):
    return np.array(
        [
            1.0 + beta * (1.0 - length / max_length) if correct else 0.0
            for correct, length in zip(correct_B, length_B, strict=True)
        ]
    )


def moments_of(rewards):
    """Count, mean and sum of squared distances of all rewards at once, in two passes."""
    rewards = [float(reward) for reward in rewards]
    if not rewards:
        return 0, 0.0, 0.0
    mean = math.fsum(rewards) / len(rewards)
    return len(rewards), mean, math.fsum((reward - mean) ** 2 for reward in rewards)


def whiten(reward_B, earlier_rewards, step, *, warmup_steps=10, warmup_baseline=0.5, min_std=1e-6, ddof=0):
    count, mean, m2 = moments_of(earlier_rewards)
    std = math.sqrt(m2 / (count - ddof)) if count > ddof else 0.0
    advantages = []
    for reward in np.asarray(reward_B, np.float64):
        if step < warmup_steps:
            advantages.append(reward - warmup_baseline)
        elif std < min_std:
            advantages.append(reward - mean)
        else:
            advantages.append((reward - mean) / std)
    return np.array(advantages)


def group_advantage(reward_B, group_size, *, epsilon=1e-4, normalise_std=True):
    advantages = []
    for start in range(0, len(reward_B), group_size):
        group = [float(reward) for reward in reward_B[start : start + group_size]]
        count, mean, m2 = moments_of(group)
        scale = math.sqrt(m2 / count) + epsilon if normalise_std else 1.0
        advantages += [(reward - mean) / scale for reward in group]
    return np.array(advantages)


def token_regimes(entropy_BT, mask_BT, *, window, entropy_max, low_quantile=0.5, high_quantile=0.7):
    """The regime's name of each token, sequence by sequence; '' for padding."""
    ahead_BT = lookahead_min(entropy_BT, mask_BT, window)
    here, ahead = sequences_of(entropy_BT, mask_BT), sequences_of(ahead_BT, mask_BT)
    tokens = [entropy / entropy_max for sequence in here for entropy in sequence]
    low, high = (np.quantile(tokens, low_quantile), np.quantile(tokens, high_quantile)) if tokens else (0.0, 0.0)
    names = np.full(np.shape(mask_BT), "", dtype=object)
    for row, (here_row, ahead_row) in enumerate(zip(here, ahead, strict=True)):
        for position, h, a in zip(np.flatnonzero(np.asarray(mask_BT)[row]), here_row, ahead_row, strict=True):
            h, a = h / entropy_max, a / entropy_max
            if h <= low:
                names[row, position] = "lock"
            elif h >= high and a >= high:
                names[row, position] = "fork"
            elif h >= high and a <= low:
                names[row, position] = "pivot"
            else:
                names[row, position] = "mid"
    return names


def entropy_deciles(entropy_BT, delta_BT, weight_BT, mask_BT, bins=10):
    """For each bin: tokens, largest entropy, mean |delta|, mean |weight|."""
    tokens = [
        token
        for row in zip(*(sequences_of(array, mask_BT) for array in (entropy_BT, delta_BT, weight_BT)), strict=True)
        for token in zip(*row, strict=True)
    ]
    edges = [np.quantile([entropy for entropy, _, _ in tokens], k / bins) for k in range(1, bins)]
    table = []
    for k in range(bins):
        inside = [token for token in tokens if sum(edge < token[0] for edge in edges) == k]
        count = max(len(inside), 1)
        table.append(
            (
                len(inside),
                max((entropy for entropy, _, _ in inside), default=0.0),
                math.fsum(abs(delta) for _, delta, _ in inside) / count,
                math.fsum(abs(weight) for _, _, weight in inside) / count,
            )
        )
    return np.array(table).T
