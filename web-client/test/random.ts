// Chance that can be had again: random numbers, the programs that follow from them, and how to replay one.
import { it } from 'vitest';

/** Random numbers that follow from a seed: mulberry32. */
export class Random {
  constructor(private state: number) {}

  /** At least 0, below `end`. */
  below(end: number): number {
    this.state = (this.state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.state ^ (this.state >>> 15), 1 | this.state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % end;
  }

  pick<T>(from: readonly T[]): T {
    const picked = from[this.below(from.length)];
    if (picked === undefined) throw new Error('nothing to pick from');
    return picked;
  }

  /** One of the keys; each has its number of chances. */
  weighed<K extends string>(chances: Readonly<Record<K, number>>): K {
    const entries = Object.entries<number>(chances) as [K, number][];
    let left = this.below(entries.reduce((sum, [, chance]) => sum + chance, 0));
    for (const [key, chance] of entries) {
      if (left < chance) return key;
      left -= chance;
    }
    throw new Error('nothing to pick from');
  }
}

/** What people type: of one unit, of several, of more than one to a character, and more than a line. */
export const TEXTS = [
  ...['a', 'bc', ' ', 'naïve', '\u{1F600}', 'x\u0301', '\n', 'long '.repeat(40), '漢字'],
  ...['\u{1F469}\u200D\u{1F680}', 'שלום', 'word '],
] as const;

/**
 * A test for each seed, side by side. COWRITE_ORACLE_SEEDS is how many there are, `usual` without it;
 * COWRITE_ORACLE_SEED is the only one. A failure says how to have it again.
 */
export function seeds(
  file: string,
  name: string,
  usual: number,
  run: (seed: number) => Promise<void>,
): void {
  const only = process.env['COWRITE_ORACLE_SEED'];
  const count = Number(process.env['COWRITE_ORACLE_SEEDS'] ?? usual);
  const all =
    only === undefined ? Array.from({ length: count }, (_, index) => index + 1) : [Number(only)];
  for (const seed of all) {
    it.concurrent(`${name}, seed ${seed}`, async () => {
      try {
        await run(seed);
      } catch (error) {
        if (error instanceof Error) {
          error.message +=
            `\nreplay: COWRITE_ORACLE_SEED=${seed} npx vitest run --project integration ` +
            `test/${file} -t '${name}'`;
        }
        throw error;
      }
    });
  }
}
