// A participant who types, through one of the providers that people have. Runs in Node, in a child
// process and in a page.

import { HocuspocusProvider, HocuspocusProviderWebsocket } from '@hocuspocus/provider';
import {
  HocuspocusProvider as HocuspocusProvider3,
  HocuspocusProviderWebsocket as HocuspocusProviderWebsocket3,
} from '@hocuspocus/provider-3';
import { Awareness } from 'y-protocols/awareness';
import { WebsocketProvider } from 'y-websocket';
import { WebsocketProvider as WebsocketProvider2 } from 'y-websocket-2';
import * as Y from 'yjs';

/** The providers, each the newest of its major version. */
export const KINDS = ['y-websocket', 'y-websocket-2', 'hocuspocus', 'hocuspocus-3'] as const;
export type Kind = (typeof KINDS)[number];
export const Y_WEBSOCKETS = ['y-websocket', 'y-websocket-2'] as const satisfies readonly Kind[];
export const HOCUSPOCUSES = ['hocuspocus', 'hocuspocus-3'] as const satisfies readonly Kind[];

/** The root that the commands of `cowrite` type into. */
const ROOT = 'content';

/** How a participant comes in. Plain data, so that it can be sent to a page or a process. */
export interface Options {
  readonly kind: Kind;
  /** The server, such as `ws://127.0.0.1:8080`. */
  readonly ws: string;
  readonly document: string;
  /** The name that others see at the cursor. */
  readonly user?: string;
  readonly token?: string;
  /** `false`: no awareness at all. */
  readonly awareness?: boolean;
  /** Hocuspocus 4: addresses carry a session id. */
  readonly sessionAwareness?: boolean;
}

/** How a socket was closed. */
export interface Close {
  readonly code: number;
  readonly reason: string;
}

/** A WebSocket class: that of `ws`, or that of the browser. */
export type SocketClass = typeof WebSocket;

/** A socket class that tells what happened to its sockets. */
function watched(Socket: SocketClass, watch: Watch): SocketClass {
  return class extends Socket {
    constructor(url: string | URL, protocols?: string | string[]) {
      super(url, protocols);
      watch.opened += 1;
      this.addEventListener('close', (event) => {
        watch.closes.push({ code: event.code, reason: event.reason });
      });
      this.addEventListener('message', () => {
        watch.messages += 1;
      });
      // The providers close sockets that are still connecting after they took their listeners off;
      // in `ws` an error that nobody listens to ends the process.
      this.addEventListener('error', () => {});
    }
  };
}

/** What happened to the sockets of a participant. */
export interface Watch {
  /** How many sockets were opened, or tried to. */
  opened: number;
  /** How many messages came. */
  messages: number;
  readonly closes: Close[];
}

/** What is common to all versions of the Hocuspocus provider. */
type Hocuspocus = HocuspocusProvider | HocuspocusProvider3;
/** The socket that several Hocuspocus providers share. */
export type HocuspocusSocket = HocuspocusProviderWebsocket | HocuspocusProviderWebsocket3;

/** A Hocuspocus socket of this kind, for several participants. */
export function hocuspocusSocket(
  options: { readonly kind: 'hocuspocus' | 'hocuspocus-3'; readonly ws: string },
  Socket: SocketClass,
): { readonly socket: HocuspocusSocket; readonly watch: Watch } {
  const watch: Watch = { opened: 0, messages: 0, closes: [] };
  const configuration = {
    url: `${options.ws}/hocuspocus`,
    WebSocketPolyfill: watched(Socket, watch),
  };
  const socket =
    options.kind === 'hocuspocus'
      ? new HocuspocusProviderWebsocket(configuration)
      : new HocuspocusProviderWebsocket3(configuration);
  return { socket, watch };
}

/** One Y.Doc with a provider. */
export class Participant {
  readonly kind: Kind;
  readonly document: string;
  readonly doc = new Y.Doc();
  readonly awareness: Awareness | null;
  readonly watch: Watch;
  /** Reasons of refused tokens that Hocuspocus was told in-band. */
  readonly denied: string[] = [];
  /** Reasons with which Hocuspocus was told that a document was closed. */
  readonly detached: string[] = [];
  /** The close that made y-websocket 3 stop for good. */
  readonly stopped: Close[] = [];
  readonly #yWebsocket: WebsocketProvider | WebsocketProvider2 | undefined;
  readonly #hocuspocus: Hocuspocus | undefined;
  readonly #ownSocket: HocuspocusSocket | undefined;
  #token: string;

  constructor(
    options: Options,
    Socket: SocketClass,
    shared?: { readonly socket: HocuspocusSocket; readonly watch: Watch },
  ) {
    this.kind = options.kind;
    this.document = options.document;
    this.#token = options.token ?? '';
    this.awareness = options.awareness === false ? null : new Awareness(this.doc);
    if (options.user !== undefined) this.setUser(options.user);
    switch (options.kind) {
      case 'y-websocket':
      case 'y-websocket-2': {
        this.watch = { opened: 0, messages: 0, closes: [] };
        this.#yWebsocket = this.#openYWebsocket(options, watched(Socket, this.watch));
        return;
      }
      case 'hocuspocus':
      case 'hocuspocus-3': {
        const { socket, watch } =
          shared ?? hocuspocusSocket({ ...options, kind: options.kind }, Socket);
        this.watch = watch;
        this.#ownSocket = shared === undefined ? socket : undefined;
        this.#hocuspocus = this.#openHocuspocus(options, socket);
        return;
      }
    }
  }

  #openYWebsocket(options: Options, Socket: SocketClass): WebsocketProvider | WebsocketProvider2 {
    const settings = {
      // Without awareness means: never announced. The provider itself always has one.
      awareness: this.awareness ?? silent(this.doc),
      params: options.token === undefined ? {} : { token: options.token },
      WebSocketPolyfill: Socket,
      // Participants of one process or browser must meet at the server, not behind its back.
      disableBc: true,
    };
    const url = `${options.ws}/yjs`;
    if (options.kind === 'y-websocket-2') {
      return new WebsocketProvider2(url, options.document, this.doc, settings);
    }
    const provider = new WebsocketProvider(url, options.document, this.doc, settings);
    provider.on('closed', (event) => this.stopped.push(event));
    return provider;
  }

  #openHocuspocus(options: Options, socket: HocuspocusSocket): Hocuspocus {
    const settings = {
      name: options.document,
      document: this.doc,
      awareness: this.awareness,
      token: () => this.#token,
      onAuthenticationFailed: ({ reason }: { reason: string }) => {
        this.denied.push(reason);
      },
      onClose: ({ event }: { event: { code: number; reason: string } }) => {
        // 1000 is how the provider reports the close of one document on a socket that stays.
        if (event.code === 1000) this.detached.push(event.reason);
      },
    };
    const provider =
      options.kind === 'hocuspocus'
        ? new HocuspocusProvider({
            ...settings,
            websocketProvider: socket as HocuspocusProviderWebsocket,
            sessionAwareness: options.sessionAwareness ?? false,
          })
        : new HocuspocusProvider3({
            ...settings,
            websocketProvider: socket as HocuspocusProviderWebsocket3,
          });
    provider.attach();
    return provider;
  }

  /** The text of the document. */
  text(): string {
    return this.#root.toString();
  }

  get #root(): Y.Text {
    return this.doc.getText(ROOT);
  }

  /** Types at a place: at the end when none is given. */
  type(text: string, at = this.#root.length): void {
    this.#root.insert(at, text);
  }

  /** Deletes. */
  erase(at: number, length: number): void {
    this.#root.delete(at, length);
  }

  /** The client id of its document. */
  id(): number {
    return this.doc.clientID;
  }

  /** Whether the provider says that it has the server's state. */
  synced(): boolean {
    return this.#yWebsocket?.synced ?? this.#hocuspocus?.isSynced ?? false;
  }

  /** Whether a socket is open. */
  connected(): boolean {
    return this.#yWebsocket?.wsconnected ?? this.#socket?.status === 'connected';
  }

  get #socket(): HocuspocusSocket | undefined {
    return this.#hocuspocus?.configuration.websocketProvider as HocuspocusSocket | undefined;
  }

  /** Hocuspocus: how many changes the server has not confirmed. */
  unsynced(): number {
    return this.#only().unsyncedChanges;
  }

  /** Hocuspocus: whether some changes are unconfirmed, as applications show it. */
  hasUnsyncedChanges(): boolean {
    return this.#only().hasUnsyncedChanges;
  }

  /** Hocuspocus: calls `then` once, in the moment in which the last change is confirmed. */
  onceSaved(then: () => void): void {
    let waiting = true;
    this.#only().on('unsyncedChanges', ({ number }: { number: number }) => {
      if (number > 0 || !waiting) return;
      waiting = false;
      then();
    });
  }

  /** Hocuspocus: `read-write` or `readonly`. */
  scope(): string | undefined {
    return this.#only().authorizedScope;
  }

  /** Hocuspocus: whether the token was taken. */
  authenticated(): boolean {
    return this.#only().isAuthenticated;
  }

  #only(): Hocuspocus {
    if (this.#hocuspocus === undefined) throw new Error(`${this.kind} does not know that`);
    return this.#hocuspocus;
  }

  /** Another token from now on; `send` tells it to the server at once, where a provider can. */
  setToken(token: string, send = true): void {
    this.#token = token;
    if (this.#yWebsocket !== undefined) this.#yWebsocket.params = { token };
    else if (send) void this.#hocuspocus?.sendToken();
  }

  /** The name at the cursor; `null`: no state at all. */
  setUser(name: string | null): void {
    if (this.awareness === null) throw new Error('opened without awareness');
    this.awareness.setLocalState(name === null ? null : { user: { name } });
  }

  /** The names at all cursors, in order. */
  users(): string[] {
    const states = [...(this.awareness?.getStates().values() ?? [])];
    return states
      .flatMap((state) => (state['user'] === undefined ? [] : [state['user'].name]))
      .sort();
  }

  /** What happened to the sockets. */
  sockets(): Watch {
    return this.watch;
  }

  /** Whether the provider still wants to be connected. */
  wantsToConnect(): boolean {
    return this.#yWebsocket?.shouldConnect ?? this.#socket?.shouldConnect ?? false;
  }

  disconnect(): void {
    this.#yWebsocket?.disconnect();
    this.#ownSocket?.disconnect();
  }

  connect(): void {
    this.#yWebsocket?.connect();
    void this.#ownSocket?.connect();
  }

  /** Leaves one document of a shared socket, and comes back. */
  detach(): void {
    this.#only().detach();
  }

  attach(): void {
    this.#only().attach();
  }

  destroy(): void {
    this.#yWebsocket?.destroy();
    this.#hocuspocus?.destroy();
    this.#ownSocket?.destroy();
    this.awareness?.destroy();
    this.doc.destroy();
  }
}

function silent(doc: Y.Doc): Awareness {
  const awareness = new Awareness(doc);
  awareness.setLocalState(null);
  return awareness;
}

/** What can be asked of a participant elsewhere, with arguments and answers that are plain data. */
export type Method =
  | 'text'
  | 'type'
  | 'erase'
  | 'id'
  | 'synced'
  | 'connected'
  | 'unsynced'
  | 'hasUnsyncedChanges'
  | 'users'
  | 'setUser'
  | 'sockets'
  | 'wantsToConnect'
  | 'disconnect'
  | 'connect'
  | 'destroy';

/** A participant in a page or another process: the same methods, answered later. */
export type Remote = {
  [name in Method]: (
    ...args: Parameters<Participant[name]>
  ) => Promise<Awaited<ReturnType<Participant[name]>>>;
};

/** Makes a remote participant of something that calls its methods. */
export function remote(
  call: (method: Method, args: readonly unknown[]) => Promise<unknown>,
): Remote {
  return new Proxy({} as Remote, {
    // Promises are recognised by `then`: a remote is none.
    get: (_, name) =>
      name === 'then' ? undefined : (...args: unknown[]) => call(name as Method, args),
  });
}

/** Somebody whose text can be looked at, here or elsewhere. */
export type Anyone = Participant | Remote;
