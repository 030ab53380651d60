// When to come back after a loss.

/** The first delay is at most this, in milliseconds. */
export const FIRST_MAX = 250;
/** No delay of this side's own is longer, in milliseconds: a person waits for it. */
export const DELAY_MAX = 30_000;
/**
 * A session that lived this long was a good one: the next loss starts from the first delay. Shorter
 * ones do not count, or a server that accepts and drops would be asked four times a second.
 */
export const STABLE = 30_000;

/**
 * Exponential backoff with full jitter: each delay is chosen evenly between nothing and a bound that
 * doubles, so that many clients of one server do not come back together.
 */
export class Backoff {
  private losses = 0;

  constructor(private readonly random: () => number = Math.random) {}

  /**
   * The delay after a loss in milliseconds. `lived` is how long the session was open, `undefined` if
   * it never was. The delay is not shorter than `retryAfter`, which the server asks for.
   */
  afterLoss(lived: number | undefined, retryAfter = 0): number {
    if (lived !== undefined && lived >= STABLE) this.losses = 0;
    const bound = Math.min(FIRST_MAX * 2 ** Math.min(this.losses, 16), DELAY_MAX);
    this.losses += 1;
    return Math.max(bound * this.random(), retryAfter);
  }

  /** The next loss starts from the first delay. */
  reset(): void {
    this.losses = 0;
  }
}
