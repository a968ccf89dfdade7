"""Kernels of one decision: the choice of a centred policy and win probabilities of correlated scores, written for a
compiler (`bandit.compiled`).

They do what `CentredPosterior.choose` and `correlated.wins` do, operation by operation in the same order, and so end in
the same bits: a compiler that may not change the order of IEEE 754 operations can add nothing and take nothing away.
Laws that need another rule than the trapezoidal one, and errors, are left to those functions: then a kernel returns
False. Uncompiled they are slower than what they stand for.

Shapes: k arms, d features, q quadratic forms. Arrays are float64, but for `place` (k, k), whole numbers, and `eligible`
(k,), booleans. `normal` (cells, 5) and `logistic` (cells, 4) are the tables of `normal_tables` and `logistic`.
"""

import math

import numpy as np
from numpy.typing import NDArray

from bandit.arrays import Array, Mask
from bandit.numerics import logistic as sigmoid
from bandit.numerics.logistic import PROBIT
from bandit.propensity import gaussian, nearly_independent, normal_tables

_LEAST = 1e-18  # variance of a score
_WHETHER = 0.7  # of the sd with which the gain of showing a nudge is drawn
_TINY = 1e-300
_UNITS, _SHARP = 2**24, 384.0  # as in `floor`, which imports this
_MOST_FLOOR, _LEAST_SUPPORT, _AFFORDED = 0.01, 1e-4, 0.0005  # the same
_REACH_SQUARE = 5.0**2
_ARMS = gaussian.FEW  # arms at most whose correlations are added one by one
_UNSURE = 1e-9  # sums this close to a bound are left to the other rule, which adds in another order

_MOST, _SLIGHT, _OFF = nearly_independent.MOST, nearly_independent.SLIGHT, nearly_independent.OFF
_SMALLEST, _JITTER = nearly_independent.SMALLEST, nearly_independent.JITTER
_ROUNDS, _STRONGEST = nearly_independent.ROUNDS, nearly_independent.STRONGEST
_NODES, _WEIGHTS = tuple(nearly_independent.NODES.tolist()), tuple(nearly_independent.WEIGHTS.tolist())
_TOLERANCE, _REACH, _RARE = gaussian.TOLERANCE, gaussian.REACH, gaussian.RARE
_LONGEST, _LOG_FOUR = gaussian.LONGEST, gaussian.LOG_FOUR
_END, _SHIFT, _CELLS, _LAST = normal_tables.END, normal_tables.SHIFT, normal_tables.CELLS, normal_tables.LAST
_FAR, _MOVE, _PARTS, _FINAL = sigmoid.END, sigmoid.SHIFT, sigmoid.CELLS, sigmoid.LAST


def below(x: float, normal: Array) -> float:
    """Distribution function Φ(x): `normal_tables.one`. NaN for NaN, which has no entry in a table."""
    if math.isnan(x):
        return x
    x = min(max(x, -_END), _END)
    at = (x + _SHIFT) - _SHIFT
    step, cell = x - at, int(at * _CELLS) + _LAST
    return float((normal[cell, 2] * step + normal[cell, 1]) * step + normal[cell, 0])


def chance(z: float, logistic: Array) -> float:
    """Logistic function σ(z): `logistic.one`. NaN for NaN."""
    if math.isnan(z):
        return z
    z = min(max(z, -_FAR), _FAR)
    at = (z + _MOVE) - _MOVE
    step, cell = z - at, int(at * _PARTS) + _FINAL
    value = (logistic[cell, 3] * step + logistic[cell, 2]) * step + logistic[cell, 1]
    return float(value * step + logistic[cell, 0])


def choice(
    stacked: Array,
    sharp: Array,
    x: Array,
    place: NDArray[np.intp],
    gain: Array,
    cost: Array,
    eligible: Mask,
    alpha: float,
    priced: bool,
    normal: Array,
    logistic: Array,
    out: Array,
) -> bool:
    """Choice of a centred policy at x (d,): `out` (3, k) becomes the expected rewards, their sds as sampled, and the
    propensities. `stacked` (q·d + k, d) and `sharp` (q·d,) as of `ScoreForms`. False: `out` is not to be used.
    """
    k = len(eligible)
    z, spread = np.empty(k), np.empty(len(sharp) // len(x))
    scores(stacked, sharp, x, z, spread)
    if not (np.isfinite(z).all() and np.isfinite(spread).all()):
        return False
    worth, scale = np.empty(k), np.ones(k)
    for a in range(k):
        worth[a] = z[a]
        variance = max(spread[place[a, a]], _LEAST)
        out[0, a] = chance(z[a] / math.sqrt(1.0 + PROBIT * variance), logistic)
        at = chance(z[a], logistic)
        steep = at * (1.0 - at)
        out[1, a] = steep * (alpha * math.sqrt(variance))
        out[2, a] = 0.0
        if priced:
            worth[a] = gain[a] * at - cost[a]
            scale[a] = gain[a] * steep
    width, some, n = np.empty((k, k)), np.empty(k, dtype=np.int64), 0
    for a in range(k):
        for b in range(k):
            width[a, b] = scale[a] * scale[b] * spread[place[a, b]]
        if eligible[a] and (a > 0 or not priced):
            some[n] = a
            n += 1
    if n == 0:
        out[2, 0] = 1.0
        return True
    mean, covariance, p, square = np.empty(n), np.empty((n, n)), np.empty(n), alpha * alpha
    for i in range(n):
        mean[i] = worth[some[i]]
        for j in range(n):
            covariance[i, j] = square * width[some[i], some[j]]
    if not wins(mean, covariance, normal, p):
        return False
    for i in range(n):
        out[2, some[i]] = p[i]
    if priced and eligible[0]:
        whether(out[2], worth, width, normal)
    return True


def scores(stacked: Array, sharp: Array, x: Array, z: Array, spread: Array) -> None:
    """Means `z` (k,) and quadratic forms `spread` (q,) of the scores at x (d,): `ScoreForms.one`. Sums are exact, so in
    any order, and forms are symmetric: their rows are taken one after the other.
    """
    k, q, d = len(z), len(spread), len(x)
    inner = np.empty(d)
    for j in range(q):
        for i in range(d):
            inner[i] = 0.0
        for f in range(d):
            value = x[f]
            if value != 0.0:
                for i in range(d):
                    inner[i] += stacked[j * d + f, i] * value
        whole = 0.0
        for i in range(d):
            whole += ((inner[i] + sharp[j * d + i]) - sharp[j * d + i]) * x[i]
        spread[j] = whole
    for a in range(k):
        mean = 0.0
        for f in range(d):
            mean += stacked[q * d + a, f] * x[f]
        z[a] = mean


def whether(share: Array, worth: Array, width: Array, normal: Array) -> None:
    """Propensities (k,) of showing a nudge or none from those among the nudges, in place."""
    k = len(share)
    share[0] = -1.0
    gain, variance = 0.0, 0.0
    for a in range(k):
        gain += share[a] * worth[a]
    for a in range(k):
        inner = 0.0
        for b in range(k):
            inner += share[b] * width[a, b]
        variance += inner * share[a]
    z = gain / (_WHETHER * math.sqrt(max(variance, _LEAST)))
    shown = below(z, normal)
    share[0] = below(-z, normal)
    for a in range(1, k):
        share[a] = shown * share[a]


def wins(mean: Array, covariance: Array, normal: Array, p: Array) -> bool:
    """Win probabilities `p` (k,) of scores N(mean (k,), covariance (k, k)). False: `p` is not to be used."""
    k, finite, best = len(mean), 0.0, 0
    for a in range(k):
        finite += mean[a]
        for b in range(k):
            finite += covariance[a, b]
        if mean[a] > mean[best]:
            best = a
        p[a] = 0.0
    if not math.isfinite(finite):
        return False
    live, n = np.empty(k, dtype=np.int64), 0
    for a in range(k):
        behind = mean[best] - mean[a]
        apart = max(covariance[a, a] + covariance[best, best] - 2.0 * covariance[best, a], 0.0)
        if behind * behind <= _REACH_SQUARE * apart:
            live[n] = a
            n += 1
    if n > _ARMS or n == 0:
        return False
    m, c, found = np.empty(n), np.empty((n, n)), np.empty(n)
    for i in range(n):
        m[i] = mean[live[i]]
        for j in range(n):
            c[i, j] = covariance[live[i], live[j]]
    if n == 1:
        found[0] = 1.0
    elif n == 2:
        z = (m[0] - m[1]) / math.sqrt(max(c[0, 0] + c[1, 1] - 2.0 * c[0, 1], _TINY))
        found[0], found[1] = below(z, normal), below(-z, normal)
    elif not nearly(m, c, normal, found):
        return False
    total = 0.0
    for i in range(n):
        total += found[i]
    for i in range(n):
        p[live[i]] = found[i] / total if n > 1 else 1.0
    return True


def nearly(m: Array, c: Array, normal: Array, p: Array) -> bool:
    """Win probabilities `p` of nearly independent scores, before division by their sum: `nearly_independent.shares`.
    False where they are not nearly independent, or one grid does not do.
    """
    k, everything, trace = len(m), 0.0, 0.0
    u, sd, rho = np.empty(k), np.empty(k), np.empty((k, k))
    for a in range(k):
        one = 0.0
        for b in range(k):
            if b != a:
                one += c[a, b]
        u[a] = one
        everything += one
        trace += c[a, a]
    half = everything / (2.0 * (k - 1.0))
    jitter = _JITTER * trace / k
    for a in range(k):
        u[a] = (u[a] - half) / (k - 2.0)
        variance = c[a, a] - 2.0 * u[a] + jitter
        if not variance > _SMALLEST:
            return False
        sd[a] = math.sqrt(variance)
    largest = 0.0
    for a in range(k):
        size = 0.0
        for b in range(k):
            rho[a, b] = 0.0 if a == b else (c[a, b] - u[a] - u[b]) / (sd[a] * sd[b])
            size += abs(rho[a, b])
        largest = max(largest, size)
    if largest > _MOST:
        return given_factor(m, sd, rho, normal, p)
    corrected = largest > _SLIGHT
    if not trapezoid(m, sd, rho, corrected, normal, p):
        return False
    total = 0.0
    for a in range(k):
        if corrected and not p[a] > 0.0:
            p[a] = 0.0
        total += p[a]
    return abs(total - 1.0) <= (_OFF if corrected else _TOLERANCE) - _UNSURE


def given_factor(m: Array, sd: Array, rho: Array, normal: Array, p: Array) -> bool:
    """Win probabilities `p` as means over one factor, given which the scores are nearly independent. False where there
    is none.
    """
    k, first, most = len(m), 0, -1.0
    for a in range(k):
        size = 0.0
        for b in range(k):
            size += abs(rho[a, b])
        if size > most:
            first, most = a, size
    start = 0.0
    for b in range(k):
        start = max(start, abs(rho[first, b]))
    start = math.sqrt(start)
    g, whole = np.empty(k), 0.0
    for b in range(k):
        g[b] = start if b == first else rho[first, b] / start
        whole += g[b] * g[b]
    for _ in range(_ROUNDS):
        for a in range(k):
            told = 0.0
            for b in range(k):
                told += rho[a, b] * g[b]
            rest = whole - g[a] * g[a]
            if not rest > 0.0:
                return False
            g[a] = told / rest
            whole = rest + g[a] * g[a]
    narrower, load, left, part, each = np.empty(k), np.empty(k), np.empty((k, k)), np.empty(k), np.empty(k)
    for a in range(k):
        if g[a] * g[a] > _STRONGEST:
            return False
        narrower[a] = math.sqrt(1.0 - g[a] * g[a])
        load[a] = g[a] * sd[a]
    for a in range(k):
        size = 0.0
        for b in range(k):
            left[a, b] = 0.0 if a == b else (rho[a, b] - g[a] * g[b]) / (narrower[a] * narrower[b])
            size += abs(left[a, b])
        if size > _MOST:
            return False
        p[a] = 0.0
    for a in range(k):
        narrower[a] = sd[a] * narrower[a]
    for q in range(len(_NODES)):
        for a in range(k):
            each[a] = m[a] + _NODES[q] * load[a]
        if not trapezoid(each, narrower, left, True, normal, part):
            return False
        total = 0.0
        for a in range(k):
            total += part[a]
            p[a] += part[a] * _WEIGHTS[q]
        if not abs(total - 1.0) <= _OFF - _UNSURE:
            return False
    for a in range(k):
        p[a] = max(p[a], 0.0)
    return True


def trapezoid(m: Array, s: Array, rho: Array, corrected: bool, normal: Array, p: Array) -> bool:
    """Win probabilities `p` by one trapezoidal grid: `gaussian.trapezoid`, with the first term in ρ if `corrected`.
    False where the grid would be long.
    """
    k, total, moment, least = len(m), 0.0, 0.0, m[0]
    low, high = m[0] - _REACH * s[0], m[0] + _REACH * s[0]
    for a in range(k):
        weight, reach = 1.0 / (s[a] * s[a]), _REACH * s[a]
        total += weight
        moment += weight * m[a]
        low, high, least = max(low, m[a] - reach), max(high, m[a] + reach), min(least, m[a])
    step = 1.0 / math.sqrt(total)
    start = moment / total - step * math.sqrt(max(_RARE - k * _LOG_FOUR, 0.0))
    if low < start <= least:
        low = start
    count = (high - low) / step + 2.0
    if not count <= _LONGEST:
        return False
    rate, ahead, z, h, v = np.empty(k), np.empty(k), np.empty(k), np.empty(k), np.empty(k)
    for a in range(k):
        rate[a], ahead[a], p[a] = step / s[a], (low - m[a]) / s[a], 0.0
    last = len(normal) - 1
    for node in range(int(count)):
        everyone = 1.0
        for a in range(k):
            z[a] = node * rate[a] + ahead[a]
            at = (z[a] + _SHIFT) - _SHIFT
            t, cell = z[a] - at, np.uintp(min(max(int(at * _CELLS) + _LAST, 0), last))
            slope = normal[cell, 1]
            under = (normal[cell, 2] * t + slope) * t + normal[cell, 0]
            h[a] = ((normal[cell, 4] * t + normal[cell, 3]) * t + slope) / under
            everyone *= under
        if corrected:
            for b in range(k):
                v[b] = h[0] * rho[0, b]
            for a in range(1, k):
                for b in range(k):
                    v[b] += h[a] * rho[a, b]
            half = 0.0
            for a in range(k):
                half += h[a] * v[a]
            half = half * 0.5 + 1.0
            for a in range(k):
                h[a] = h[a] * (half - v[a] * (h[a] + z[a]))
        for a in range(k):
            p[a] += h[a] * everyone
    for a in range(k):
        p[a] = p[a] * rate[a]
    return True


def afforded(
    p: Array,
    mean: Array,
    gain: Array,
    cost: Array,
    share: float,
    rate: float,
    eligible: Mask,
    out: Array,
) -> bool:
    """Propensities `out` (k,) that are drawn from, of p (k,) with ramp and floors as a policy can afford them:
    `floor.afforded`. False: `out` is not to be used.
    """
    k, best, floor, ramped = len(p), -np.inf, np.empty(len(p)), np.empty(len(p))
    for a in range(k):
        floor[a] = gain[a] * mean[a] - cost[a]
        if eligible[a] and floor[a] > best:
            best = floor[a]
        ramped[a] = share * p[a] if share < 1.0 else p[a]
    if share < 1.0:
        ramped[0] += 1.0 - share
    most, worth = _MOST_FLOOR * share, _AFFORDED * rate * share
    for a in range(k):
        floor[a] = min(most, max(_LEAST_SUPPORT, worth / max(best - floor[a], _TINY)))
    return drawable(ramped, floor, eligible, out)


def drawable(p: Array, floor: Array, eligible: Mask, out: Array) -> bool:
    """Propensities `out` (k,) that are drawn from, of p and floors (k,): `floor.apportioned`. False: `out` is not to be
    used.
    """
    k, total, units = len(p), 0.0, 0.0
    least, value, above = np.empty(k), np.empty(k), np.empty(k, dtype=np.bool_)
    for a in range(k):
        value[a] = (p[a] + _SHARP) - _SHARP
        total += value[a]  # exact, on a grid
        least[a] = math.ceil(floor[a] * _UNITS) if eligible[a] else 0.0
        units += least[a]
        least[a] /= _UNITS
        above[a] = eligible[a]
    if not (abs(total - 1.0) <= _TOLERANCE and units <= _UNITS):
        return False
    left, scale = 1.0, 1.0 / total
    while True:
        low, rest, falls = 0.0, 0.0, False
        for a in range(k):
            if above[a] and value[a] * scale < least[a]:
                above[a], falls = False, True
                low += least[a]
            elif above[a]:
                rest += value[a]
        if not falls:
            break
        left -= low
        scale = left / max(rest, _TINY)
    missing = float(_UNITS)
    for a in range(k):
        lifted = value[a] * scale if eligible[a] else 0.0
        lifted = (lifted if lifted > least[a] else least[a]) * _UNITS
        out[a] = math.floor(lifted)
        value[a] = lifted - out[a]
        missing -= out[a]
    while missing > 0.0:
        most = 0
        for a in range(1, k):
            if value[a] > value[most]:
                most = a
        out[most] += 1.0
        value[most] = -1.0
        missing -= 1.0
    for a in range(k):
        out[a] *= 1.0 / _UNITS
    return True


def swept(a: Array, found: Array) -> None:
    """Sweep of a (n, n) in place over its first m rows, whose pivots `found` (m,) become: `arithmetic.sweep`."""
    n = len(a)
    column, row = np.empty(n), np.empty(n)
    for j in range(len(found)):
        found[j] = a[j, j]
        pivot = 1.0 / a[j, j]
        for i in range(n):
            column[i] = a[i, j]
            row[i] = a[j, i] * pivot
        for i in range(n):
            for f in range(n):
                a[i, f] -= column[i] * row[f]
        for i in range(n):
            a[j, i] = row[i]
        for i in range(n):
            a[i, j] = column[i] * -pivot
        a[j, j] = pivot
