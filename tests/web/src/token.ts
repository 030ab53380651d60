// JSON Web Tokens, signed with HS256, as `auth.mode = "jwt"` takes them.

import { createHmac } from 'node:crypto'

/** What a token says. */
export interface Claims {
  /** Who. */
  readonly subject?: string
  /** What may be done with which documents. */
  readonly grants: Readonly<Record<string, 'read' | 'write'>>
  /** Seconds from now until the token expires: an hour, if not said. */
  readonly seconds?: number
}

/** A token. The one place that knows the form of the claims. */
export function token(secret: string, claims: Claims): string {
  const now = Math.floor(Date.now() / 1000)
  return sign(secret, {
    sub: claims.subject ?? 'alice',
    iat: now,
    exp: now + (claims.seconds ?? 3600),
    cowrite: claims.grants,
  })
}

function sign(secret: string, payload: object): string {
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url')
  const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part(payload)}`
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`
}
