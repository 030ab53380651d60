// Certificates for servers on the loopback device, signed by themselves.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Makes a certificate and its key. */
export function makeCertificate(certificate: string, key: string): void {
  const kind = ['-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  const subject = ['-days', '2', '-subj', '/CN=localhost'];
  const names = ['-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1'];
  const files = ['-keyout', key, '-out', certificate];
  execFileSync('openssl', ['req', ...kind, ...subject, ...names, ...files], { stdio: 'pipe' });
}

/** A certificate in a directory of its own. */
export class Certificate {
  readonly #directory = mkdtempSync(join(tmpdir(), 'cowrite-cert-'));
  readonly certificate = join(this.#directory, 'cert.pem');
  readonly key = join(this.#directory, 'key.pem');

  constructor() {
    makeCertificate(this.certificate, this.key);
  }

  /** Removes the files. */
  remove(): void {
    rmSync(this.#directory, { recursive: true, force: true });
  }
}
