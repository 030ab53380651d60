// Tokens: where they come from, and when a running session needs a new one.
import { CowriteError } from './errors.js';

/** Credentials, or where to get them. A function is called anew for each join and each refresh. */
export type Token = string | (() => string | Promise<string>);

/** No refresh is sooner than this after the last, in milliseconds. */
const REFRESH_MIN = 5_000;
/** How long a token function may take, in milliseconds. */
const TOKEN_TIMEOUT = 30_000;

/** The token now. Throws `CowriteError` with code `token` when the application's function fails. */
export async function tokenText(token: Token | undefined): Promise<string> {
  if (token === undefined) return '';
  if (typeof token === 'string') return token;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    const error = new CowriteError('token', 'the token function did not answer within 30 s');
    timer = setTimeout(() => reject(error), TOKEN_TIMEOUT);
  });
  try {
    return await Promise.race([Promise.resolve(token()), late]);
  } catch (error) {
    if (error instanceof CowriteError) throw error;
    throw new CowriteError('token', `the token function failed: ${String(error)}`, {
      cause: error,
    });
  } finally {
    clearTimeout(timer);
  }
}

/**
 * How long after it was fetched a token should be replaced, in milliseconds: at four fifths of its
 * lifetime. The lifetime is `exp - iat` of a JWT, both by the clock of whoever issued it, so that the
 * clock here plays no part. `undefined` for a token that is no JWT or does not say both.
 */
export function refreshDelay(token: string): number | undefined {
  const payload = token.split('.')[1];
  if (payload === undefined) return undefined;
  try {
    const json = atob(payload.replaceAll('-', '+').replaceAll('_', '/'));
    const claims: unknown = JSON.parse(json);
    if (typeof claims !== 'object' || claims === null) return undefined;
    if (!('exp' in claims) || !('iat' in claims)) return undefined;
    const { exp, iat } = claims;
    if (typeof exp !== 'number' || typeof iat !== 'number' || !(exp > iat)) return undefined;
    return Math.max((exp - iat) * 1000 * 0.8, REFRESH_MIN);
  } catch {
    return undefined;
  }
}
