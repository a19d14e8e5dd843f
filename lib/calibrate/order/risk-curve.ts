/**
 * The probability that an exit changes an answer, as a logistic curve of the doubt that its confidence leaves. Losses are
 * rare where an exit is useful, so a threshold set by counting them would follow chance; the curve is fitted to all
 * rows.
 */

/** Rows of one exit. */
export interface Evidence {
  /** Of each row: the higher, the likelier a loss. */
  readonly doubts: Float64Array;
  /** Of each row: 1 where taking the exit changes the answer; of vectors, a loss in [0, 1]. */
  readonly losses: ArrayLike<number>;
}

/** Logit of the risk: at + slope * (doubt - centre). */
interface Curve {
  readonly at: number;
  readonly slope: number;
  readonly centre: number;
}

/** The prior of an exit's curve weighs as much as rows with this many losses; where every row has some loss, as this many rows. */
const PRIOR = 30;
/** Risk rises with doubt, at least slightly. */
const MIN_SLOPE = 0.05;
const MAX_STEPS = 60;

const { abs, exp, max } = Math;

function riskAt({ at, slope, centre }: Curve, doubt: number): number {
  return 1 / (1 + exp(-(at + slope * (doubt - centre))));
}

/**
 * The risk of every row of every exit. Exits of one kind are alike: each has its own curve, drawn towards the one
 * that fits all of them together, as in partial pooling (Gelman and Hill 2007).
 * @param rare whether few rows have a loss
 */
export function risksOf(exits: readonly Evidence[], rare = true): Float64Array[] {
  const pooled = fitCurve(exits, undefined, 1);
  return exits.map((exit) => {
    const { doubts } = exit;
    const expected = doubts.reduce((sum, doubt) => sum + riskAt(pooled, doubt), 0) / doubts.length;
    const curve = fitCurve([exit], pooled, rare ? PRIOR / expected : PRIOR);
    return doubts.map((doubt) => riskAt(curve, doubt));
  });
}

/**
 * Fits by Newton's method to the likelihood of all rows, and of `weight` pseudo-rows spread over them with the risks
 * of `prior`, or one half without a prior.
 */
function fitCurve(exits: readonly Evidence[], prior: Curve | undefined, weight: number): Curve {
  const rows = exits.reduce((sum, { doubts }) => sum + doubts.length, 0);
  const total = exits.reduce((sum, { doubts }) => sum + doubts.reduce((a, b) => a + b, 0), 0);
  const [centre, share] = [total / rows, weight / rows];
  let curve: Curve = { at: -3, slope: 1, centre };
  for (let step = 0; step < MAX_STEPS; step++) {
    // Gradient, and the negative of the Hessian; never singular.
    let [g0, g1, h00, h01, h11] = [0, 0, 1e-9, 0, 1e-9];
    for (const { doubts, losses } of exits) {
      for (let row = 0; row < doubts.length; row++) {
        const x = doubts[row]! - centre;
        const risk = riskAt(curve, doubts[row]!);
        const believed = prior ? riskAt(prior, doubts[row]!) : 0.5;
        const slope = losses[row]! - risk + share * (believed - risk);
        const bend = (1 + share) * risk * (1 - risk);
        g0 += slope;
        g1 += slope * x;
        h00 += bend;
        h01 += bend * x;
        h11 += bend * x * x;
      }
    }
    const determinant = h00 * h11 - h01 * h01;
    const [d0, d1] = [(h11 * g0 - h01 * g1) / determinant, (h00 * g1 - h01 * g0) / determinant];
    const largest = max(abs(d0), abs(d1));
    // Far from the optimum a full step may overshoot.
    const part = largest > 2 ? 2 / largest : 1;
    curve = { at: curve.at + part * d0, slope: max(MIN_SLOPE, curve.slope + part * d1), centre };
    if (largest < 1e-8) break;
  }
  return curve;
}
