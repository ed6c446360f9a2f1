// The mathematics of the explorer: predictions, limits, moves. No element of the page is touched.
const Explorer = (given) => {
  "use strict";
  const K = given.domains.length, M = given.targets.length, surface = given.surface;
  const SLACK = 1e-6, TOUCH = 1e-4;
  const at = surface.centers.map((w) => w.map((x) => Math.max(x, 0) ** surface.power));
  const sum = (values) => values.reduce((a, b) => a + b, 0);
  const dot = (a, b) => sum(a.map((x, i) => x * b[i]));

  // The n + 1 + K functions of `Surface` at one mixture.
  const basis = (w) => {
    const x = w.map((share) => Math.max(share, 0) ** surface.power);
    const radial = at.map((center) => {
      let square = 0;
      for (let k = 0; k < K; k++) square += (x[k] - center[k]) ** 2;
      return square * Math.sqrt(square);
    });
    return [...radial, 1, ...x];
  };
  const apply = (functions, coefficients, columns) => {
    const result = new Array(columns).fill(0);
    functions.forEach((value, i) => {
      const row = coefficients[i];
      for (let m = 0; m < columns; m++) result[m] += value * row[m];
    });
    return result;
  };
  const predict = (w) => {
    const functions = basis(w);
    const law = apply(functions, surface.spread, M).map(Math.exp);
    return {
      mean: apply(functions, surface.mean, M),
      sd: law.map((sd, m) => Math.hypot(sd, surface.error[m])),
    };
  };

  const divergence = (w, from) => {
    let total = 0;
    for (let k = 0; k < K; k++) {
      if (w[k] <= 0) continue;
      if (from[k] <= 0) return Infinity;
      total += w[k] * Math.log(w[k] / from[k]);
    }
    return total;
  };
  const feasible = (w) =>
    w.every((share) => share >= -SLACK) &&
    Math.abs(sum(w) - 1) <= SLACK * K &&
    given.limits.every((limit) => dot(limit.row, w) <= limit.bound + SLACK) &&
    (given.most_domains === null || w.filter((x) => x > SLACK).length <= given.most_domains) &&
    (given.most_kl === null || divergence(w, given.prior) <= given.most_kl + SLACK);
  const binding = (w) => {
    const names = given.limits.filter((l) => dot(l.row, w) >= l.bound - TOUCH).map((l) => l.name);
    if (given.most_kl !== null && divergence(w, given.prior) >= given.most_kl - TOUCH)
      names.push(`KL to the prior at most ${given.most_kl} nats`);
    if (given.most_domains !== null && w.filter((x) => x > SLACK).length >= given.most_domains)
      names.push(`at most ${given.most_domains} domains`);
    return names;
  };

  // As far from a feasible mixture towards another as the limits allow.
  const towards = (from, to) => {
    if (feasible(to)) return to;
    let low = 0, high = 1;
    for (let i = 0; i < 40; i++) {
      const middle = (low + high) / 2;
      const point = from.map((x, k) => x + middle * (to[k] - x));
      if (feasible(point)) low = middle; else high = middle;
    }
    return from.map((x, k) => x + low * (to[k] - x));
  };

  // One share set, held ones kept, the others in their old proportions (or equal, if all were 0).
  const moved = (w, k, share, held) => {
    const free = w.map((_, j) => j).filter((j) => j !== k && !held.has(j));
    const kept = sum(w.filter((_, j) => j !== k && held.has(j)));
    if (!free.length) return w;
    const target = Math.min(Math.max(share, 0), 1 - kept);
    const rest = 1 - kept - target, before = sum(free.map((j) => w[j]));
    const result = w.slice();
    result[k] = target;
    free.forEach((j) => { result[j] = before > 1e-12 ? (w[j] / before) * rest : rest / free.length; });
    return towards(w, result);
  };

  // The objective as `Shape` has it: the largest of the rows, infinite where a floor is broken.
  const level = (form, scores) => Math.max(...form.rows.map((row, p) => dot(row, scores) - form.offsets[p]));
  const broken = (form, scores) => form.floors.some((row, f) => dot(row, scores) > form.bounds[f] + SLACK);
  const weighted = (weights) => {
    const total = sum(weights);
    return { rows: [weights.map((v) => v / total)], offsets: [0], floors: [], bounds: [] };
  };
  // Half an interval of the objective: errors of targets may all go one way, so they are added.
  const half = (form, found) => {
    const values = form.rows.map((row, p) => dot(row, found.mean) - form.offsets[p]);
    const row = form.rows[values.indexOf(Math.max(...values))];
    return given.z * sum(row.map((v, m) => Math.abs(v) * found.sd[m]));
  };

  // The best feasible mixture that a pairwise exchange of shares finds from several starts.
  const best = (form, starts) => {
    const rows = [...form.rows, ...form.floors];
    const folded = Array.from({ length: surface.mean.length }, (_, i) => rows.map((row) => dot(row, surface.mean[i])));
    const value = (w) => {
      const found = apply(basis(w), folded, rows.length);
      const over = form.bounds.map((bound, f) => found[form.rows.length + f] - bound);
      const short = Math.max(0, ...over);
      return Math.max(...form.offsets.map((offset, p) => found[p] - offset)) + (short > SLACK ? 10 + 100 * short : 0);
    };
    const pool = [...starts, ...surface.centers].filter(feasible).map((w) => [value(w), w]);
    pool.sort((a, b) => a[0] - b[0]);
    const climbed = pool.slice(0, 3).map(([score, start]) => {
      let w = start, here = score;
      for (let step = 0.16; step > 0.002; ) {
        let found = null;
        for (let i = 0; i < K; i++) {
          if (w[i] <= 0) continue;
          for (let j = 0; j < K; j++) {
            if (i === j) continue;
            const next = w.slice(), part = Math.min(step, w[i]);
            next[i] -= part;
            next[j] += part;
            if (!feasible(next)) continue;
            const score = value(next);
            if (score < here - 1e-9) { here = score; found = next; }
          }
        }
        if (found) w = found; else step /= 2;
      }
      return [here, w];
    });
    climbed.sort((a, b) => a[0] - b[0]);
    return climbed.length ? climbed[0][1] : null;
  };

  // Half the sum of absolute differences to the nearest mixture that was trained.
  const nearest = (w) =>
    Math.min(...given.tried.map((t) => sum(t.map((x, k) => Math.abs(x - w[k]))) / 2));
  return { predict, divergence, feasible, binding, towards, moved, level, broken, weighted, half, best, nearest };
};
