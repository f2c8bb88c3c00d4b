/** Signal to difference in dB; infinite where all samples are equal, NaN where the lengths differ. */
export function compare(a, b) {
  if (a.length !== b.length || a.length === 0) return NaN;
  let [signal, difference] = [0, 0];
  for (let i = 0; i < a.length; i++) {
    signal += b[i] * b[i];
    difference += (a[i] - b[i]) ** 2;
  }
  return difference === 0 ? Infinity : 10 * Math.log10(signal / difference);
}
