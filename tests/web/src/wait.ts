// Waiting for a condition, with a bound and a message.

/** How long a wait takes at the most, unless it says something else. */
export const PATIENCE_MS = 15_000;

/** How often a condition is looked at. */
const LOOK_MS = 10;

/** What `until` waited for did not happen in time. */
export class Waited extends Error {
  override readonly name = 'Waited';
}

/** A value that may come later. */
export type Soon<T> = T | Promise<T>;

/**
 * Waits until `condition` is true. `what` completes the sentence "waited for …"; a function is asked
 * at the end, so that it can tell what was there instead.
 */
export async function until(
  what: string | (() => Soon<string>),
  condition: () => Soon<boolean>,
  patienceMs = PATIENCE_MS,
): Promise<void> {
  const end = performance.now() + patienceMs;
  while (!(await condition())) {
    if (performance.now() > end) {
      const text = typeof what === 'string' ? what : await what();
      throw new Waited(`waited ${patienceMs} ms for ${text}`);
    }
    await pause(LOOK_MS);
  }
}

/** Resolves as `promise` does, but not after the bound. */
export async function within<T>(
  what: string,
  promise: Promise<T>,
  patienceMs = PATIENCE_MS,
): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Waited(`waited ${patienceMs} ms for ${what}`)), patienceMs);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Lets time pass: for tests whose promise is about time, such as that silence does not end a
 * connection. Everything else waits for a condition.
 */
export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/**
 * Checks that `condition` stays true for a while: for promises that something does not happen.
 */
export async function stays(
  what: string,
  condition: () => Soon<boolean>,
  ms: number,
): Promise<void> {
  const end = performance.now() + ms;
  do {
    if (!(await condition())) throw new Error(`did not stay so for ${ms} ms: ${what}`);
    await pause(LOOK_MS);
  } while (performance.now() < end);
}
