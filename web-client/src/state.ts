// How a provider stands with its server: events and the time in, effects out. Nothing here waits,
// sends or knows a document, so that every rule about time can be tested without any.
import { Backoff } from './backoff.js';
import { CowriteError } from './errors.js';

/** How long a server may take to answer Join, in milliseconds. */
export const FIRST_MESSAGE_TIMEOUT = 10_000;
/** Over two heartbeat intervals without a word from the server, this side asks, in milliseconds. */
export const SILENCE_SLACK = 5_000;
/**
 * How long the answer to a probe may take, in milliseconds. Only a probe that was sent and not
 * answered ends a session, never a timer that came late: browsers let timers of a page in the
 * background run once a minute.
 */
export const PROBE_TIMEOUT = 3_000;
/** Edits on their way that are not acknowledged for this long end the session, in milliseconds. */
export const UNACKED_MAX = 30_000;
/** A timer that comes this much too late means that the machine slept, in milliseconds. */
export const SLEEP_GAP = 10_000;

/** As Yjs providers have it. */
export type Status = 'connecting' | 'connected' | 'disconnected';

/** What to do, in order. */
export type Effect =
  /** Open a session. */
  | { readonly kind: 'open' }
  /** Let go of the session, or of the attempt to open one. */
  | { readonly kind: 'abort'; readonly leave: boolean }
  /** Send something at once that the server has to answer. */
  | { readonly kind: 'probe' }
  /** Tell the application. */
  | { readonly kind: 'status'; readonly status: Status }
  /** Tell the application that a session or an attempt has ended. */
  | {
      readonly kind: 'closed';
      readonly error: CowriteError;
      readonly permanent: boolean;
      /** When the next attempt is made, in milliseconds from now. */
      readonly retryAfter: number | undefined;
    };

type Phase =
  /** Nobody wants a session. */
  | { readonly kind: 'idle' }
  /** A session is wanted, and something has to happen first: the local copy loads. */
  | { readonly kind: 'held' }
  /** `since` is when Join was sent; not yet while a token is fetched. */
  | { readonly kind: 'opening'; readonly since: number | undefined }
  | { readonly kind: 'open'; readonly since: number; readonly silenceMax: number }
  | { readonly kind: 'waiting'; readonly until: number; readonly serverAsked: boolean }
  /** There will be no session until somebody calls connect. */
  | { readonly kind: 'refused' };

const SIX_CONNECTIONS =
  'the server did not answer within 10 s. Over HTTP/1.1 a browser has six connections to one host, ' +
  'for all tabs together, and every open document takes one: serve over TLS with HTTP/2';

/** The rules of when to connect, when to give a session up, and when to come back. */
export class ConnectionState {
  private phase: Phase = { kind: 'idle' };
  private status: Status = 'disconnected';
  private held = false;
  private heardAt = 0;
  private probeUntil: number | undefined;
  private unackedSince: number | undefined;
  private readonly backoff: Backoff;

  constructor(random?: () => number) {
    this.backoff = new Backoff(random);
  }

  /** A session is joined. */
  get isOpen(): boolean {
    return this.phase.kind === 'open';
  }

  /** The server refused, and nobody asked again. */
  get isRefused(): boolean {
    return this.phase.kind === 'refused';
  }

  /** No session before {@link release}. */
  hold(): void {
    this.held = true;
  }

  /** The local copy has loaded. */
  release(): Effect[] {
    this.held = false;
    return this.phase.kind === 'held' ? this.open() : [];
  }

  /** A session is wanted. Again is the same as once. */
  connect(): Effect[] {
    if (this.phase.kind !== 'idle' && this.phase.kind !== 'refused') return [];
    this.backoff.reset();
    return this.open();
  }

  /** No session is wanted. `leave` says goodbye to the server first. */
  disconnect(leave: boolean): Effect[] {
    const { kind } = this.phase;
    this.phase = { kind: 'idle' };
    this.probeUntil = undefined;
    const abort: Effect[] =
      kind === 'opening' || kind === 'open'
        ? [{ kind: 'abort', leave: leave && kind === 'open' }]
        : [];
    return [...abort, ...this.show('disconnected')];
  }

  /** Join is sent. */
  joining(now: number): void {
    if (this.phase.kind === 'opening') this.phase = { kind: 'opening', since: now };
  }

  /** The server has answered Join. It pings when it hears nothing for `heartbeatInterval`. */
  opened(now: number, heartbeatInterval: number): Effect[] {
    if (this.phase.kind !== 'opening') return [];
    this.phase = { kind: 'open', since: now, silenceMax: 2 * heartbeatInterval + SILENCE_SLACK };
    this.heardAt = now;
    this.probeUntil = undefined;
    return this.show('connected');
  }

  /** Something came on the stream. */
  heard(now: number): void {
    this.heardAt = now;
  }

  /** The server has answered a Publish. */
  answered(now: number): void {
    this.heardAt = now;
    this.probeUntil = undefined;
  }

  /** Since when updates have been on their way, if any are. */
  unacked(since: number | undefined): void {
    this.unackedSince = since;
  }

  /** The session or the attempt to open one has ended. */
  ended(error: CowriteError, now: number): Effect[] {
    if (this.phase.kind !== 'opening' && this.phase.kind !== 'open') return [];
    if (error.code !== 'lost' && error.code !== 'token') {
      this.phase = { kind: 'refused' };
      return [
        ...this.show('disconnected'),
        { kind: 'closed', error, permanent: true, retryAfter: undefined },
      ];
    }
    const lived = this.phase.kind === 'open' ? now - this.phase.since : undefined;
    const retryAfter = this.backoff.afterLoss(lived, error.retryAfter);
    const serverAsked = error.retryAfter !== undefined;
    this.phase = { kind: 'waiting', until: now + retryAfter, serverAsked };
    this.probeUntil = undefined;
    return [...this.show('disconnected'), { kind: 'closed', error, permanent: false, retryAfter }];
  }

  /**
   * The machine or the page may have slept, or the network has changed: asks the server, or does not
   * wait any longer. A delay that the server asked for is not cut short.
   */
  wake(now: number): Effect[] {
    switch (this.phase.kind) {
      case 'waiting':
        return this.phase.serverAsked ? [] : this.open();
      case 'open':
        return this.probe(now);
      case 'idle':
      case 'held':
      case 'opening':
      case 'refused':
        return [];
    }
  }

  /** When {@link tick} has something to do, if nothing happens before. */
  deadline(): number | undefined {
    switch (this.phase.kind) {
      case 'opening':
        return this.phase.since === undefined
          ? undefined
          : this.phase.since + FIRST_MESSAGE_TIMEOUT;
      case 'waiting':
        return this.phase.until;
      case 'open':
        return Math.min(
          this.probeUntil ?? this.heardAt + this.phase.silenceMax,
          (this.unackedSince ?? Infinity) + UNACKED_MAX,
        );
      case 'idle':
      case 'held':
      case 'refused':
        return undefined;
    }
  }

  /** The time has moved on. */
  tick(now: number): Effect[] {
    const deadline = this.deadline();
    if (deadline === undefined || now < deadline) return [];
    switch (this.phase.kind) {
      case 'waiting':
        return this.open();
      case 'opening':
        return this.giveUp(SIX_CONNECTIONS, now);
      case 'open':
        if (this.probeUntil !== undefined && now >= this.probeUntil) {
          // The first try after a probe does not wait: whoever sits there has just come back.
          this.probeUntil = undefined;
          const closed = new CowriteError('lost', 'the connection did not survive');
          return [
            { kind: 'abort', leave: false },
            { kind: 'closed', error: closed, permanent: false, retryAfter: 0 },
            ...this.open(),
          ];
        }
        if (now >= (this.unackedSince ?? Infinity) + UNACKED_MAX) {
          return this.giveUp('edits were not acknowledged for 30 s', now);
        }
        return this.probe(now);
      case 'idle':
      case 'held':
      case 'refused':
        return [];
    }
  }

  private probe(now: number): Effect[] {
    if (this.probeUntil !== undefined) return [];
    this.probeUntil = now + PROBE_TIMEOUT;
    return [{ kind: 'probe' }];
  }

  private giveUp(message: string, now: number): Effect[] {
    return [{ kind: 'abort', leave: false }, ...this.ended(new CowriteError('lost', message), now)];
  }

  private open(): Effect[] {
    if (this.held) {
      this.phase = { kind: 'held' };
      return this.show('connecting');
    }
    this.phase = { kind: 'opening', since: undefined };
    this.unackedSince = undefined;
    return [{ kind: 'open' }, ...this.show('connecting')];
  }

  private show(status: Status): Effect[] {
    if (status === this.status) return [];
    this.status = status;
    return [{ kind: 'status', status }];
  }
}
