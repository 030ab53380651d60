// JSON Web Tokens, signed with HS256, and the settings of a server that takes them.

import { spawnSync } from 'node:child_process';
import { createHmac, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { plainEnvironment } from './process.ts';
import { binary, environment, type Settings } from './server.ts';

const ISSUER = 'https://tests.example';
const AUDIENCE = 'cowrite';

/** What a token grants: documents by their ids, or by a prefix of them that ends with `/`. */
export type Grants = Readonly<Record<string, 'read' | 'write'>>;

/** What a token says beside its grants. */
export interface Claims {
  /** Who. */
  readonly subject?: string;
  /** Seconds from now until the token expires: an hour, if not said. */
  readonly seconds?: number;
}

/** One who issues tokens. */
export class Issuer {
  readonly #secret = randomBytes(32).toString('hex');
  readonly #directory = mkdtempSync(join(tmpdir(), 'cowrite-keys-'));

  constructor() {
    writeFileSync(this.#file, this.#secret, { mode: 0o600 });
  }

  get #file(): string {
    return join(this.#directory, 'secret');
  }

  /** The settings of a server that takes these tokens, to the second. */
  get settings(): Settings {
    return {
      'auth.mode': 'jwt',
      'auth.issuer': ISSUER,
      'auth.audience': AUDIENCE,
      'auth.keys': `[{ algorithm = "HS256", file = "${this.#file}" }]`,
      'auth.leeway': '0s',
    };
  }

  /** A token. The one place that knows the form of the claims. */
  token(grants: Grants, claims: Claims = {}): string {
    const now = Date.now() / 1000;
    const documents = Object.entries(grants).map(([name, access]) =>
      name === '' || name.endsWith('/') ? { prefix: name, access } : { id: name, access },
    );
    return sign(this.#secret, {
      iss: ISSUER,
      aud: AUDIENCE,
      sub: claims.subject ?? 'alice',
      exp: now + (claims.seconds ?? 3600),
      cowrite: { documents },
    });
  }

  /** Forgets the secret. */
  remove(): void {
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

function sign(secret: string, payload: object): string {
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');
  const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part(payload)}`;
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
}

/** Whether the server that is tested knows tokens. */
export function takesTokens(): boolean {
  const issuer = new Issuer();
  const env = { ...plainEnvironment(), ...environment(issuer.settings) };
  const checked = spawnSync(binary(), ['check-config'], { env, stdio: 'pipe' });
  issuer.remove();
  return checked.status === 0;
}
