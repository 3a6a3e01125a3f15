/* Numbers in [0, 1) from a seed (mulberry32), the same in every engine. */
function uniforms(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

/* Twelve of them less six: variance 1, nearly normal, and exact. */
function bell(uniform) {
  let sum = -6;
  for (let k = 0; k < 12; k++) sum += uniform();
  return sum;
}

const KINDS = {
  normal: (uniform) => bell(uniform),
  positive: (uniform) => 0.25 + Math.abs(bell(uniform)),
  unit: (uniform) => 0.05 + 0.9 * uniform(),
  whole: (uniform, below) => Math.floor(uniform() * below),
};

/* The elements of the input at a position among the inputs. */
function drawn(kind, position, count, seed, below) {
  if (kind === "whole" && count > 0 && !(below >= 1)) throw new RangeError("an axis without elements has no positions");
  const uniform = uniforms(seed + Math.imul(0x9e3779b1, position + 1));
  const one = KINDS[kind];
  const data = new Float64Array(count);
  for (let k = 0; k < count; k++) data[k] = one(uniform, below);
  return data;
}
