// The Yjs provider: ties a document, its awareness and its local copy to sessions.
import { ObservableV2 } from 'lib0/observable';
import { Awareness } from 'y-protocols/awareness';
import * as Y from 'yjs';
import { AwarenessLink } from './awareness.js';
import { CowriteError, type Reason, guard } from './errors.js';
import { Access, type Joined } from './gen/cowrite/v1/collaboration_pb.js';
import type { CowriteEvents, CowriteOptions } from './options.js';
import { LeaveWarning, isVisible, watchPage } from './page.js';
import { LocalCopy, localCopyName } from './persistence.js';
import { applyRemote, difference, hasMore, restore } from './replica.js';
import { GRACE, type SaveState, saveState } from './save-state.js';
import { type DocumentAccess, KEEPALIVE_BYTES, Session, milliseconds } from './session.js';
import { ConnectionState, type Effect, SLEEP_GAP, type Status } from './state.js';
import { refreshDelay, tokenText } from './token.js';
import { type Transport, type UpFrame, grpcWebTransport } from './transport.js';
import { type Refusal, Unconfirmed } from './unconfirmed.js';

const PROTOCOL_VERSION = 1;
/** Where a server does not say, it pings this often, in milliseconds. */
const HEARTBEAT_INTERVAL = 15_000;
/** How often it is looked whether the machine slept, in milliseconds. */
const LOOK_INTERVAL = 5_000;
/** When a document that is full is tried again: somebody may have deleted something. */
const FULL_RETRY = 30_000;
const TIMER_MAX = 0x7fff_ffff;

/** Keeps a Yjs document in sync with a Cowrite server. */
export class CowriteProvider extends ObservableV2<CowriteEvents> {
  /** The document. */
  readonly doc: Y.Doc;
  /** Who else is here; `undefined` when that was not wanted. */
  readonly awareness: Awareness | undefined;
  /** The document's id. */
  readonly document: string;
  /** The server's address. */
  readonly url: string;

  private readonly options: CowriteOptions;
  private readonly transport: Transport;
  private readonly connection = new ConnectionState();
  private readonly unconfirmed: Unconfirmed;
  private readonly link: AwarenessLink | undefined;
  private readonly ownAwareness: boolean;
  private readonly warning = new LeaveWarning();
  private readonly unwatch: () => void;
  private localCopy: LocalCopy | undefined;
  private session: Session | undefined;
  /** Grows with each session, so that what was begun for an earlier one is not used. */
  private attempt = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private timerAt = Infinity;
  private timerWall = 0;
  private refreshAt: number | undefined;
  private wanted = false;
  private hidden = false;
  private forked = false;
  private destroyed = false;
  /** The last session ended because an edit was not allowed. */
  private denied = false;
  private lastError: CowriteError | undefined;
  /** Whether a session that resumes has to be looked at. */
  private resumed = false;
  private readonly waiters = new Set<() => void>();
  private readonly effects: Effect[] = [];
  private running = false;

  private shownStatus: Status = 'disconnected';
  private shownSynced = false;
  private shownState: SaveState = 'saved';
  private shownAccess: DocumentAccess | undefined;
  /** The history that the copy belongs to; empty while unknown. */
  private epochBytes = new Uint8Array();
  /** The sequence of the last frame that was applied. */
  private sequence = 0n;
  private syncSequence = 0n;
  /** Gaps in the copy that a complete difference did not close: not the server's. */
  private gapsTolerated = false;

  constructor(doc: Y.Doc, options: CowriteOptions) {
    super();
    this.doc = doc;
    this.options = options;
    this.document = options.document;
    this.url = options.url.replace(/\/+$/, '');
    this.transport = options.transport ?? grpcWebTransport(this.url, options.fetch);
    this.unconfirmed = new Unconfirmed((since) => difference(doc, since));
    this.ownAwareness = options.awareness === undefined;
    this.awareness =
      options.awareness === null ? undefined : (options.awareness ?? new Awareness(doc));
    this.link =
      this.awareness &&
      new AwarenessLink(this.awareness, this, {
        changed: () => this.kick(),
        tooLarge: (message) => this.failed(new CowriteError('not-saved', message)),
      });
    if (doc.store.clients.size > 0) this.unconfirmed.unknown(now());
    doc.on('update', this.onUpdate);
    doc.on('destroy', this.onDestroy);
    this.unwatch = watchPage({
      hide: () => this.hide(),
      show: () => this.show(),
      wake: () => this.run(this.connection.wake(now())),
    });
    this.openLocalCopy();
    if (options.connect ?? true) this.connect();
    this.refresh();
  }

  /** Whether a session is open, being opened, or not there. */
  get status(): Status {
    return this.shownStatus;
  }

  /** The copy has everything that the server had when the session began, and edits come as made. */
  get synced(): boolean {
    return this.shownSynced;
  }

  /** How the edits made here stand. */
  get state(): SaveState {
    return this.shownState;
  }

  /** What the session may do; `undefined` before the first one. */
  get access(): DocumentAccess | undefined {
    return this.shownAccess;
  }

  /** The history that the copy belongs to, in hexadecimal; empty while unknown. */
  get epoch(): string {
    return hex(this.epochBytes);
  }

  /** How many edits are not known to be durable on the server. */
  get unsavedEdits(): number {
    return this.unconfirmed.edits;
  }

  /** For how long there have been such edits, in milliseconds; 0 when there are none. */
  get unackedFor(): number {
    const since = this.unconfirmed.unsavedSince;
    return since === undefined ? 0 : now() - since;
  }

  /** Why the server does not take edits, while it does not. */
  get refusal(): Refusal | undefined {
    return this.unconfirmed.refusal;
  }

  /**
   * Wants a session from now on. Again is the same as once. After a fork it does nothing: the copy
   * belongs to another history, and the document is opened with a new `Y.Doc`.
   */
  connect(): void {
    if (this.destroyed || this.forked) return;
    this.wanted = true;
    this.hidden = false;
    this.run(this.connection.connect());
  }

  /** Leaves the session, and wants none. Edits go on being kept. */
  disconnect(): void {
    this.wanted = false;
    this.run(this.connection.disconnect(true));
  }

  /** Lets go of everything. The document stays as it is. */
  override destroy(): void {
    if (this.destroyed) return;
    this.disconnect();
    this.destroyed = true;
    this.doc.off('update', this.onUpdate);
    this.doc.off('destroy', this.onDestroy);
    this.link?.destroy();
    if (this.ownAwareness) guard(() => this.awareness?.destroy());
    this.unwatch();
    this.warning.set(false);
    clearTimeout(this.timer);
    this.localCopy?.close();
    this.checkWaiters();
    super.destroy();
  }

  /** Resolves when the copy is in sync; rejects when there will be no session. */
  whenSynced(): Promise<void> {
    return this.until(() => this.shownSynced);
  }

  /**
   * Resolves when every edit made so far is durable on the server; rejects when the server does not
   * take one, or when there will be no session.
   */
  whenSaved(): Promise<void> {
    return this.until(() => {
      const { error } = this.unconfirmed;
      if (error !== undefined) throw error;
      return this.unconfirmed.edits === 0;
    });
  }

  private until(reached: () => boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      const check = () => {
        try {
          if (reached()) resolve();
          else if (!this.destroyed && !this.connection.isRefused) return;
          else reject(this.lastError ?? new CowriteError('lost', 'the provider is closed'));
        } catch (error) {
          reject(error as CowriteError);
        }
        this.waiters.delete(check);
      };
      this.waiters.add(check);
      check();
    });
  }

  private checkWaiters(): void {
    for (const check of [...this.waiters]) check();
  }

  /** What an application throws when it is told of something stops nothing here. */
  override emit<Name extends keyof CowriteEvents & string>(
    name: Name,
    args: Parameters<CowriteEvents[Name]>,
  ): void {
    guard(() => super.emit(name, args));
  }

  // The document.

  private readonly onUpdate = (
    update: Uint8Array,
    origin: unknown,
    _doc: Y.Doc,
    transaction: Y.Transaction,
  ): void => {
    if (this.localCopy !== undefined && origin === this.localCopy) return;
    if (origin === this) {
      this.localCopy?.append(update, undefined);
      return;
    }
    this.unconfirmed.edited(update, transaction.beforeState, now());
    this.localCopy?.append(update, this.unconfirmed.lastEdit);
    this.refresh();
    // After the transaction: an editor often makes several at once, which then travel together.
    queueMicrotask(() => this.kick());
  };

  private readonly onDestroy = (): void => this.destroy();

  private apply(update: Uint8Array): boolean {
    return applyRemote(this.doc, update, this);
  }

  // The local copy.

  private openLocalCopy(): void {
    const persistence =
      this.options.persistence ?? (typeof indexedDB === 'undefined' ? false : 'indexeddb');
    if (persistence === false) return;
    // It loads fully before the network starts: what the server sends is then a difference to it.
    this.connection.hold();
    const copy = new LocalCopy(
      localCopyName(this.url, this.document),
      { changed: () => this.refresh(), failed: (error) => this.failed(error) },
      () => Y.encodeStateAsUpdate(this.doc),
    );
    this.localCopy = copy;
    const loaded = copy.load().then(
      ({ updates, epoch, unsaved }) => {
        if (this.destroyed) return;
        if (epoch !== undefined) this.epochBytes = new Uint8Array(epoch);
        const broken = restore(this.doc, updates, copy);
        // What the document had before it was given to this provider.
        const early = this.unconfirmed.edits > 0;
        if (unsaved) this.unconfirmed.unknown(now());
        if (early) copy.appendAll(this.unconfirmed.lastEdit);
        copy.start(unsaved ? this.unconfirmed.lastEdit : 0);
        if (broken === undefined) return;
        const message = 'a part of the local copy cannot be read';
        this.failed(new CowriteError('persistence', message, { cause: broken }));
      },
      (error: CowriteError) => {
        this.localCopy = undefined;
        this.failed(error);
      },
    );
    void loaded.then(() => {
      if (this.destroyed) return;
      this.run(this.connection.release());
    });
  }

  private failed(error: CowriteError): void {
    this.emit('error', [error]);
    this.refresh();
  }

  // The session.

  private async open(): Promise<void> {
    const attempt = ++this.attempt;
    let token: string;
    try {
      token = await tokenText(this.options.token);
    } catch (error) {
      if (attempt !== this.attempt) return;
      const failure = error as CowriteError;
      this.failed(failure);
      return this.ended(failure);
    }
    if (attempt !== this.attempt) return;
    const delay = refreshDelay(token);
    this.refreshAt =
      delay === undefined || typeof this.options.token !== 'function' ? undefined : now() + delay;
    const known = this.epochBytes.length > 0;
    this.connection.joining(now());
    this.schedule();
    this.session = new Session(
      this.transport,
      {
        protocolVersion: PROTOCOL_VERSION,
        document: this.document,
        token,
        // What was typed before the first session is no reason to ask for a difference.
        stateVector: known ? Y.encodeStateVector(this.doc) : new Uint8Array(),
        epoch: this.epochBytes,
        resumeSequence: known ? this.sequence : 0n,
        awarenessClientId: BigInt(this.link?.clientId ?? 0),
        access: this.options.access === 'read' ? Access.READ : Access.UNSPECIFIED,
      },
      {
        collect: () => this.collect(),
        joined: (joined, access) => this.joined(joined, access),
        synced: (update, sequence) => {
          this.gapsTolerated = !this.apply(update);
          this.reached(sequence);
          this.setSynced(true);
        },
        updated: (update, sequence) => this.updated(update, sequence),
        acknowledged: (id, sequence) => {
          this.unconfirmed.acknowledged(id);
          this.denied = false;
          // It says that everything of others was sent; while a difference is coming in parts, not
          // that it was applied.
          if (this.shownSynced) this.reached(sequence);
          this.refresh();
        },
        refused: (id, reason, message, retryAfter) => this.refused(id, reason, message, retryAfter),
        awareness: (client, clock, state) => this.link?.received(client, clock, state),
        access: (access) => this.setAccess(access),
        heard: () => this.connection.heard(now()),
        answered: () => {
          this.connection.answered(now());
          this.unconfirmed.accepted(now());
          this.refresh();
        },
        ended: (error) => this.ended(error),
      },
    );
  }

  private joined(joined: Joined, access: DocumentAccess): void {
    const known = this.epochBytes.length > 0;
    const other = known && hex(joined.epoch) !== hex(this.epochBytes);
    // A document that did not exist had no epoch; one that knows less than was seen is another one.
    const younger = !known && this.sequence > joined.syncSequence;
    if (other || younger) {
      throw new CowriteError('epoch', 'the document has another history on the server', {
        reason: 'EPOCH_MISMATCH',
      });
    }
    if (!known && joined.epoch.length > 0) {
      this.epochBytes = new Uint8Array(joined.epoch);
      this.localCopy?.setEpoch(this.epochBytes);
    }
    this.syncSequence = joined.syncSequence;
    const limit = (bytes: bigint | undefined) => Number(bytes ?? 0n) || Infinity;
    const time = now();
    if (hasMore(this.doc, joined.stateVector)) this.unconfirmed.unknown(time);
    this.unconfirmed.sessionBegan(joined.stateVector, {
      updateBytesMax: limit(joined.limits?.updateBytesMax),
      messageBytesMax: limit(joined.limits?.messageBytesMax),
    });
    this.link?.sessionBegan(limit(joined.limits?.awarenessBytesMax));
    const interval = milliseconds(joined.heartbeatInterval) ?? HEARTBEAT_INTERVAL;
    this.run(this.connection.opened(time, interval));
    this.setAccess(access);
    // A server that restored an older state counts from there.
    if (!joined.resumed) this.sequence = 0n;
    this.resumed = joined.resumed;
    this.checkResumed();
  }

  /** A session that resumes is in sync when it has got to where the document was. */
  private checkResumed(): void {
    if (this.resumed && !this.shownSynced && this.sequence >= this.syncSequence) {
      this.setSynced(true);
    }
  }

  private updated(update: Uint8Array, sequence: bigint): void {
    if (!this.apply(update) && !this.gapsTolerated) {
      // The next session asks for the difference instead of for what comes after a sequence.
      this.sequence = 0n;
      throw new CowriteError('lost', 'an update is missing');
    }
    this.reached(sequence);
  }

  private reached(sequence: bigint): void {
    if (sequence > this.sequence) this.sequence = sequence;
    this.checkResumed();
  }

  private refused(id: bigint, reason: Reason, message: string, retryAfter?: number): void {
    const delay = retryAfter ?? (reason === 'DOCUMENT_TOO_LARGE' ? FULL_RETRY : undefined);
    this.unconfirmed.refused(id, { reason, message }, delay, now());
    const { error } = this.unconfirmed;
    this.refresh();
    if (error !== undefined) this.emit('error', [error]);
  }

  private ended(error: CowriteError): void {
    const wasOpen = this.connection.isOpen;
    this.endSession();
    const cause = wasOpen && this.isWorthReturning(error) ? asLost(error) : error;
    if (cause.code === 'epoch') this.fork();
    this.run(this.connection.ended(cause, now()));
  }

  /** What ended a session that was open, and would be final for one that was never had. */
  private isWorthReturning({ reason }: CowriteError): boolean {
    // A token may have expired under a session that slept: the next one is a fresh one.
    if (['UNAUTHENTICATED', 'TOKEN_EXPIRED', 'TOKEN_REVOKED'].includes(reason)) {
      return typeof this.options.token === 'function';
    }
    // An edit may have been under way when the right to write was taken. Not twice in a row.
    const again = this.denied;
    this.denied = reason === 'WRITE_DENIED';
    return this.denied && !again;
  }

  private endSession(): void {
    this.attempt += 1;
    this.session = undefined;
    this.refreshAt = undefined;
    this.resumed = false;
    this.unconfirmed.sessionEnded();
    this.link?.sessionEnded();
    this.setSynced(false);
  }

  private fork(): void {
    this.forked = true;
    const epoch = this.epoch;
    const update = Y.encodeStateAsUpdate(this.doc);
    // The copy belongs to its own history for ever; edits in it are no longer for this document.
    // And none of it is on the server any more.
    this.unconfirmed.unknown(now());
    const kept = this.localCopy?.fork(epoch, update, this.unconfirmed.lastEdit);
    this.emit('fork', [{ epoch, kept, update }]);
  }

  /** What to send now, at most one message. */
  private collect(): UpFrame[] {
    const frames: UpFrame[] = [];
    const state = this.link?.take();
    if (state !== undefined) frames.push({ case: 'awareness', value: { state } });
    for (const { id, update } of this.unconfirmed.take(now())) {
      frames.push({ case: 'update', value: { updateId: id, update } });
    }
    this.refresh();
    return frames;
  }

  private kick(): void {
    this.session?.kick();
  }

  // Decisions and their effects.

  /** Carries out effects in the order of the decisions, also when an application decides meanwhile. */
  private run(effects: readonly Effect[]): void {
    this.effects.push(...effects);
    if (this.running) return;
    this.running = true;
    try {
      for (let next = this.effects.shift(); next !== undefined; next = this.effects.shift()) {
        this.carryOut(next);
      }
    } finally {
      this.running = false;
    }
    this.refresh();
  }

  private carryOut(effect: Effect): void {
    switch (effect.kind) {
      case 'open':
        void this.open();
        break;
      case 'abort':
        this.letGo(effect.leave, false);
        break;
      case 'probe':
        this.session?.probe();
        break;
      case 'status':
        this.shownStatus = effect.status;
        this.emit('status', [{ status: effect.status }]);
        break;
      case 'closed': {
        const { error, permanent, retryAfter } = effect;
        this.lastError = error;
        this.refresh();
        const closed = { reason: error.reason, message: error.message, permanent };
        this.emit('closed', [retryAfter === undefined ? closed : { ...closed, retryAfter }]);
        break;
      }
    }
  }

  private letGo(leave: boolean, unloading: boolean): void {
    const session = this.session;
    if (session !== undefined && leave) {
      session.leave(unloading ? this.lastWords() : this.collect(), unloading);
    } else {
      session?.drop();
    }
    this.endSession();
  }

  /** What a page that goes still sends: everything unconfirmed, if it is small. */
  private lastWords(): UpFrame[] {
    if (this.unconfirmed.edits === 0 || this.shownAccess === 'read') return [];
    const update = this.unconfirmed.everything();
    if (update.length > KEEPALIVE_BYTES) return [];
    return [{ case: 'update', value: { updateId: this.unconfirmed.freshId(), update } }];
  }

  private hide(): void {
    if (!this.wanted || this.hidden) return;
    this.hidden = true;
    if (this.connection.isOpen) this.letGo(true, true);
    this.run(this.connection.disconnect(false));
  }

  private show(): void {
    if (this.hidden && this.wanted) this.connect();
  }

  private refreshToken(): void {
    const attempt = this.attempt;
    this.refreshAt = undefined;
    tokenText(this.options.token).then(
      (token) => {
        if (attempt !== this.attempt) return;
        this.session?.refreshToken(token);
        const delay = refreshDelay(token);
        this.refreshAt = delay === undefined ? undefined : now() + delay;
        this.schedule();
      },
      // The session goes on until the server ends it; the next one asks again.
      (error: CowriteError) => this.failed(error),
    );
  }

  // What is shown, and when to look again.

  private setSynced(synced: boolean): void {
    if (synced === this.shownSynced) return;
    this.shownSynced = synced;
    this.emit('synced', [synced]);
    this.checkWaiters();
  }

  private setAccess(access: DocumentAccess): void {
    // What is not a comment is refused by the server, which knows what is one.
    this.unconfirmed.mayWrite(access !== 'read');
    if (access !== this.shownAccess) {
      this.shownAccess = access;
      this.emit('access', [access]);
    }
    this.refresh();
    this.kick();
  }

  /** Brings what is shown up to date. */
  private refresh(): void {
    if (this.destroyed) return;
    this.connection.unacked(this.unconfirmed.waitingSince);
    const kept =
      this.localCopy !== undefined && this.localCopy.keptThrough >= this.unconfirmed.lastEdit;
    const state = saveState({
      edits: this.unconfirmed.edits,
      refused: this.unconfirmed.refusal !== undefined,
      connected: this.connection.isOpen,
      willConnect: this.wanted && !this.connection.isRefused,
      kept,
      unsavedFor: this.unackedFor,
    });
    this.warning.set(state !== 'saved' && !kept);
    if (state === 'saved') this.localCopy?.saved();
    if (state !== this.shownState) {
      this.shownState = state;
      this.emit('saved', [state]);
    }
    this.checkWaiters();
    this.schedule();
  }

  private schedule(): void {
    if (this.destroyed) return;
    const time = now();
    const since = this.unconfirmed.unsavedSince;
    const deadline = Math.min(
      this.connection.deadline() ?? Infinity,
      this.unconfirmed.retryAt ?? Infinity,
      this.refreshAt ?? Infinity,
      this.shownState === 'saving' && !this.connection.isOpen ? (since ?? time) + GRACE : Infinity,
      this.connection.isOpen ? time + LOOK_INTERVAL : Infinity,
    );
    // A timer that comes early is harmless, and cheaper than a new one for each key.
    if (deadline >= this.timerAt) return;
    clearTimeout(this.timer);
    this.timerAt = deadline;
    const delay = Math.min(Math.max(deadline - time, 0), TIMER_MAX);
    this.timerWall = Date.now() + delay;
    this.timer = setTimeout(() => this.onTimer(), delay);
  }

  private onTimer(): void {
    this.timerAt = Infinity;
    if (this.destroyed) return;
    const slept = Date.now() - this.timerWall > SLEEP_GAP;
    const time = now();
    if (slept && isVisible()) this.run(this.connection.wake(time));
    this.run(this.connection.tick(time));
    if (this.refreshAt !== undefined && this.refreshAt <= time) this.refreshToken();
    this.kick();
    this.refresh();
  }
}

function now(): number {
  return performance.now();
}

function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

function asLost(error: CowriteError): CowriteError {
  const { reason, retryAfter } = error;
  return new CowriteError('lost', error.message, { reason, retryAfter, cause: error });
}
