// The four ways in which a page comes to the server.

import type { Envoy } from './envoy.ts';
import type { Door, Server, Settings } from './server.ts';
import type { World } from './world.ts';

/** A server and the way to it. */
export interface Path {
  readonly server: Server;
  readonly envoy: Envoy | undefined;
  /** Where pages come in. */
  readonly door: Door;
}

/** Makes a server and the way to it. */
export type OpenPath = (world: World, settings?: Settings) => Promise<Path>;

const ways: Readonly<Record<string, OpenPath>> = {
  'directly over HTTP/1.1': async (world, settings) => {
    const server = await world.server(settings);
    return { server, envoy: undefined, door: server.door };
  },
  'directly over HTTP/2 with TLS': async (world, settings) => {
    const server = await world.serverWithTls(settings);
    return { server, envoy: undefined, door: server.tlsDoor };
  },
  'through Envoy over HTTP/1.1': async (world, settings) => {
    const server = await world.server(settings);
    const envoy = await world.envoy(server);
    return { server, envoy, door: envoy.door };
  },
  'through Envoy over HTTP/2 with TLS': async (world, settings) => {
    const server = await world.server(settings);
    const envoy = await world.envoy(server);
    return { server, envoy, door: envoy.tlsDoor };
  },
};

/** All of them, by name. */
export const PATHS: readonly (readonly [string, OpenPath])[] = Object.entries(ways);

/** Those with a proxy. */
export const PROXIED = PATHS.filter(([name]) => name.includes('Envoy'));

/** One of them. */
export function path(name: string): OpenPath {
  const found = ways[name];
  if (found === undefined) throw new Error(`there is no path ${name}`);
  return found;
}

/** The HTTP version of a path, as `PerformanceResourceTiming.nextHopProtocol` has it. */
export function protocolOf(name: string): 'h2' | 'http/1.1' {
  return name.includes('HTTP/2') ? 'h2' : 'http/1.1';
}
