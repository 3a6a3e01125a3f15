/* Scalar functions that JavaScript lacks, and its own where NumPy's meaning differs at an edge. */

/* a^b as C defines it: 1^b and a^0 are 1, also where the other is NaN; whole powers by multiplication. */
function power(a, b) {
  if (a === 1 || (a === -1 && (b === Infinity || b === -Infinity))) return 1;
  if (b !== Math.floor(b) || b < 1 || b > 8) return Math.pow(a, b);
  let product = a;
  for (let k = 1; k < b; k++) product *= a;
  return product;
}

/* Integers: floor and ceiling of a quotient, and a remainder with the sign of b; 0 where b is 0. */
function floorDivide(a, b) {
  return b === 0 ? 0 : Math.floor(a / b);
}
function ceilDivide(a, b) {
  return b === 0 ? 0 : Math.ceil(a / b);
}
function modulo(a, b) {
  return a - b * floorDivide(a, b);
}

/* 1 where z > 0; the same with 1/2 at 0; z^(-1/2) with 0 at 0; z with 0 where it is infinite. */
function step(z) {
  return z > 0 ? 1 : 0;
}
function halfStep(z) {
  return (step(z) + 1 - step(-z)) / 2;
}
function inverseRoot(z) {
  return z === 0 ? 0 : 1 / Math.sqrt(z);
}
function finite(z) {
  return z === Infinity || z === -Infinity ? 0 : z;
}

/* 1 / (1 + e^-z) and log(1 + e^z), without overflow. */
function sigmoid(z) {
  const small = Math.exp(z < 0 ? z : -z);
  return (z < 0 ? small : 1) / (1 + small);
}
function softplus(z) {
  return Math.log1p(Math.exp(z < 0 ? z : -z)) + (z < 0 ? 0 : z);
}

/* erf z = z P(z²) up to 1, its power series; beyond, 1 - erfc z.
 * erfc z = e^(-z²) C(u) / (1 + 2 z), u = (z - 3)/(z + 3), C a series of Chebyshev polynomials (Shepherd and Laframboise, 1981). */
const ERF = [
  1.1283791670955125739, -0.37612638903183752463, 0.11283791670955125739, -0.026866170645131251759,
  0.0052239776254421878421, -0.00085483270234508528325, 0.00012055332981789664251, -0.000014925650358406250977,
  1.6462114365889247402e-6, -1.6365844691234924317e-7, 1.480719281587921724e-8, -1.2290555301717927353e-9,
  9.4227590646504109706e-11, -6.7113668551641103779e-12, 4.4632242632864773449e-13, -2.7835162072109213549e-14,
  1.6342614095367151894e-15, -9.0639708428086724792e-17, 4.7633480405150681197e-18,
];
const ERFC = [
  1.1775625741965600463, 0.0053539045396156767694, -0.093775503422842090522, 0.054366525557443220495,
  -0.018976596707845207386, 0.0044534260614627115695, -0.00063355317105531469398, 0.000017661719523171591851,
  0.000012841532864056670734, -2.0072285659059914438e-6, -1.8075227904148371024e-7, 7.5498283438250928278e-8,
  1.8856685238386027905e-9, -2.6995190497983639975e-9, -1.4600791199391049408e-11, 1.0361607445969489676e-10,
  1.4757159766234730087e-12, -4.2773400643969108248e-12, -2.0792249285979899778e-13, 1.8134502003176962422e-13,
  1.9734255745447388335e-14, -7.2879437375926731568e-15, -1.5169878690228115682e-15, 2.3514112258781403525e-16,
  1.0006111691821667611e-16, -2.0572528169538546196e-18, -5.6086082188631829491e-18,
];
function erf(z) {
  if (z > 1 || z < -1) return z > 0 ? 1 - erfc(z) : erfc(-z) - 1;
  const square = z * z;
  let sum = 0;
  for (let k = ERF.length - 1; k >= 0; k--) sum = sum * square + ERF[k];
  return z * sum;
}
function erfc(z) {
  if (z < 0.5) return z < -1 ? 2 - erfc(-z) : 1 - erf(z);
  if (z > 28) return 0;
  const u = (2 * (z - 3)) / (z + 3);
  let sum = 0;
  let next = 0;
  for (let k = ERFC.length - 1; k > 0; k--) [sum, next] = [u * sum - next + ERFC[k], sum];
  const series = (u / 2) * sum - next + ERFC[0];
  const high = Math.fround(z); // its square is exact, so that e^(-z²) keeps its digits
  return ((series / (1 + 2 * z)) * Math.exp((high - z) * (high + z))) * Math.exp(-high * high);
}

/* The input of that name, if it has so many elements; a place that data give, if it lies on its axis. */
function take(inputs, name, length) {
  const data = inputs[name];
  if (data === undefined || data.length !== length) throw new RangeError(`${name} must have ${length} elements`);
  return data;
}
function at(place, extent) {
  if (!(place >= 0 && place < extent)) throw new RangeError(`${place} is no position on an axis of ${extent}`);
  return place;
}
function filled(length, value) {
  const data = new Float64Array(length);
  return value === 0 ? data : data.fill(value);
}
