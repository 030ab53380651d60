// When a token is replaced.
import { expect, it } from 'vitest';
import { refreshDelay } from './token.js';

const jwt = (claims: object) => `h.${Buffer.from(JSON.stringify(claims)).toString('base64url')}.s`;

it('pitfall 12: a JWT is replaced after four fifths of its lifetime, whatever the date is here', () => {
  for (const iat of [0, 1_000_000_000, 4_000_000_000]) {
    expect(refreshDelay(jwt({ iat, exp: iat + 600, name: '\u00fc\u00ff\u00be' }))).toBe(480_000);
  }
});

it('a lifetime of a moment does not make a busy loop', () => {
  expect(refreshDelay(jwt({ iat: 10, exp: 11 }))).toBe(5_000);
});

it('what is no JWT, or does not say when it was made and ends, is not replaced', () => {
  const tokens = ['', 'secret', 'a.b.c', jwt({ exp: 5 }), jwt({ iat: 5 }), jwt({ iat: 9, exp: 3 })];
  expect(tokens.map(refreshDelay)).toEqual(tokens.map(() => undefined));
});
