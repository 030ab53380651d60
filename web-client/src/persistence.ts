// The copy of a document on this device, in IndexedDB: updates in the order of their arrival, and a
// few facts about them. Every write is checked; tabs with the same document append side by side.
import * as Y from 'yjs';
import { CowriteError } from './errors.js';

const PREFIX = 'cowrite:';
const KEPT = '#kept-';
const UPDATES = 'updates';
const FACTS = 'facts';
/** The history that the copy belongs to. */
const EPOCH = 'epoch';
/** `unsaved:` and a tab's name: that tab had edits that the server may not have. */
const UNSAVED = 'unsaved:';
/** More rows than this are replaced by one. */
const ROWS_MAX = 400;
/** Some browsers never answer the opening of a database, in milliseconds. */
const OPEN_TIMEOUT = 5_000;
/** How long after a failed write the next one is tried, in milliseconds. */
const RETRY_DELAY = 5_000;

/** What a local copy holds. */
export interface Loaded {
  readonly updates: readonly Uint8Array[];
  readonly epoch: Uint8Array | undefined;
  /** There may be edits in it that the server does not have. */
  readonly unsaved: boolean;
}

/** What a local copy tells its owner. */
export interface LocalCopyPorts {
  /** {@link LocalCopy.keptThrough} has moved. */
  readonly changed: () => void;
  readonly failed: (error: CowriteError) => void;
}

/** The name of the local copy of a document. */
export function localCopyName(url: string, document: string): string {
  return `${PREFIX}${url}/${document}`;
}

/** The local copy of one document in one tab. */
export class LocalCopy {
  private db: IDBDatabase | undefined;
  /** Names this tab's edits. */
  private readonly tab = `${UNSAVED}${crypto.randomUUID()}`;
  /** Marks of earlier tabs, with their values, that this tab answers for since it has their edits. */
  private adopted = new Map<string, unknown>();
  /** Rows whose content this tab has: it may replace them, and no others. */
  private rows: IDBValidKey[] = [];
  private epoch: Uint8Array | undefined;
  private pending: Uint8Array[] = [];
  /** The last edit among the pending updates, 0 for none. */
  private pendingEdit = 0;
  private epochChanged = false;
  /** The server has all edits of this tab. */
  private cleared = true;
  /** This tab's mark is in the database. */
  private marked = false;
  private started = false;
  private writing = false;
  private retry: ReturnType<typeof setTimeout> | undefined;
  private closed = false;
  /** A write has failed, so that the rows have a gap: the next one writes everything. */
  private incomplete = false;
  private kept = 0;
  private last = 0;

  constructor(
    private name: string,
    private readonly ports: LocalCopyPorts,
    private readonly everything: () => Uint8Array,
  ) {}

  /** Up to this edit everything is in the database, durably. */
  get keptThrough(): number {
    return this.kept;
  }

  /** Reads everything. Throws `CowriteError` with code `persistence`. */
  async load(): Promise<Loaded> {
    try {
      const db = await open(this.name);
      if (this.closed) db.close();
      this.db = db;
      // Another tab deletes the copy or a newer version comes: neither is held up.
      db.onversionchange = () => db.close();
      const tx = db.transaction([UPDATES, FACTS]);
      const updates = tx.objectStore(UPDATES);
      const facts = tx.objectStore(FACTS);
      const [rows, values, names, contents] = await Promise.all([
        request(updates.getAllKeys()),
        request(updates.getAll()),
        request(facts.getAllKeys()),
        request(facts.getAll()),
      ]);
      this.rows = rows;
      names.forEach((name, i) => {
        if (name === EPOCH) this.epoch = contents[i] as Uint8Array;
        else if (String(name).startsWith(UNSAVED)) this.adopted.set(String(name), contents[i]);
      });
      return {
        updates: values as Uint8Array[],
        epoch: this.epoch,
        unsaved: this.adopted.size > 0,
      };
    } catch (error) {
      throw failure('the local copy cannot be read', error);
    }
  }

  /**
   * What was read is in the document, so that writing can begin. Edits that were found unsaved count
   * as edits up to `edit` of this tab; they are kept already.
   */
  start(edit: number): void {
    this.last = Math.max(this.last, edit);
    if (this.pendingEdit === 0) this.kept = this.last;
    this.started = true;
    if (edit > 0) this.cleared = false;
    this.write();
  }

  /** Keeps an update. `edit` is the number of the local edit that it is, if it is one. */
  append(update: Uint8Array, edit: number | undefined): void {
    if (this.closed) return;
    // After a failure everything is written anyway.
    if (!this.incomplete) this.pending.push(update);
    if (edit !== undefined) {
      this.pendingEdit = this.last = edit;
      this.cleared = false;
      void askToPersist();
    }
    this.write();
  }

  /** Keeps everything that the document has, up to local edit `edit`. */
  appendAll(edit: number): void {
    this.append(this.everything(), edit);
  }

  /** The history that the copy belongs to is known. */
  setEpoch(epoch: Uint8Array): void {
    this.epoch = epoch;
    this.epochChanged = true;
    this.write();
  }

  /** The server has all edits. */
  saved(): void {
    if (this.cleared && this.adopted.size === 0) return;
    this.cleared = true;
    this.write();
  }

  /**
   * Gives the copy a name of its own, because the document has another history now, and makes room
   * for that. `all` is everything, up to local edit `edit`. Returns the name. Later edits are kept
   * there.
   */
  fork(epoch: string, all: Uint8Array, edit: number): string {
    const main = this.db;
    const history = this.epoch;
    const name = `${this.name}${KEPT}${epoch.slice(0, 8)}-${Date.now().toString(36)}`;
    this.name = name;
    this.db = undefined;
    this.rows = [];
    this.started = false;
    this.adopted.clear();
    this.pending = [all];
    this.pendingEdit = this.last = edit;
    this.cleared = false;
    this.epochChanged = true;
    this.incomplete = false;
    this.kept = 0;
    void this.moveTo(name, main, history);
    return name;
  }

  private async moveTo(
    name: string,
    main: IDBDatabase | undefined,
    history: Uint8Array | undefined,
  ): Promise<void> {
    try {
      this.db = await open(name);
      this.started = true;
      await this.writeNow();
      if (main === undefined || this.kept < this.last) return;
      // Only now that it is safe elsewhere, and only if no other tab was here before.
      const tx = main.transaction([UPDATES, FACTS], 'readwrite');
      const done = finished(tx);
      const stored: unknown = await request(tx.objectStore(FACTS).get(EPOCH));
      if (same(stored, history)) {
        tx.objectStore(UPDATES).clear();
        tx.objectStore(FACTS).clear();
      }
      await done;
      main.close();
    } catch (error) {
      this.ports.failed(failure('the fork cannot be kept', error));
    }
  }

  /** Lets go of the database, after what is being written. */
  close(): void {
    this.closed = true;
    clearTimeout(this.retry);
    if (!this.writing) this.db?.close();
  }

  private write(): void {
    if (this.writing || !this.started || this.db === undefined || this.retry !== undefined) return;
    void this.writeNow();
  }

  private async writeNow(): Promise<void> {
    this.writing = true;
    while (this.db !== undefined && this.hasWork()) {
      try {
        const kept = await this.writeGuarded(this.db);
        if (kept > this.kept) {
          this.kept = kept;
          this.ports.changed();
        }
      } catch (error) {
        this.writing = false;
        this.writeFailed(error);
        return;
      }
    }
    this.writing = false;
    if (this.closed) this.db?.close();
  }

  private writeFailed(error: unknown): void {
    const known = this.incomplete;
    this.incomplete = true;
    this.pending = [];
    if (this.closed) return;
    this.retry = setTimeout(() => void this.reopen(), RETRY_DELAY);
    if (!known) this.ports.failed(failure('the local copy cannot be written', error));
  }

  /** Tries again on a new connection: a browser may have closed the one that there was. */
  private async reopen(): Promise<void> {
    this.db?.close();
    try {
      this.db = await open(this.name);
    } catch (error) {
      if (!this.closed) this.writeFailed(error);
      return;
    }
    this.retry = undefined;
    if (this.closed) return this.db.close();
    // Perhaps somebody has deleted what was there.
    this.rows = [];
    this.epochChanged = this.epoch !== undefined;
    this.write();
  }

  /** Writes; of several tabs only one at a time makes one row of many. */
  private writeGuarded(db: IDBDatabase): Promise<number> {
    const locks = globalThis.navigator?.locks;
    const compact = this.rows.length > ROWS_MAX;
    if (this.incomplete || !compact || locks === undefined) {
      return this.writeOnce(db, this.incomplete || compact);
    }
    return locks.request(`${this.name}#compact`, { ifAvailable: true }, (lock) =>
      this.writeOnce(db, lock !== null),
    );
  }

  private hasWork(): boolean {
    const toClear = this.cleared && this.marked;
    const toDisown = this.cleared && this.adopted.size > 0;
    return this.incomplete || this.pending.length > 0 || this.epochChanged || toClear || toDisown;
  }

  /** One transaction. `whole` replaces all rows by one. Returns up to which edit all is kept. */
  private async writeOnce(db: IDBDatabase, whole: boolean): Promise<number> {
    const updates = whole ? [this.everything()] : this.pending;
    const replaced = whole ? this.rows : [];
    const edit = whole ? this.last : this.pendingEdit;
    const mark = edit > 0 && !this.cleared;
    const clear = this.cleared;
    const { epochChanged, epoch } = this;
    const adopted = clear ? [...this.adopted] : [];
    this.pending = [];
    this.pendingEdit = 0;
    // Strict only for what nobody else has.
    const durability = edit > 0 ? 'strict' : 'relaxed';
    const tx = db.transaction([UPDATES, FACTS], 'readwrite', { durability });
    const done = finished(tx);
    const rows: IDBValidKey[] = [];
    try {
      const facts = tx.objectStore(FACTS);
      const stored: unknown = await request(facts.get(EPOCH));
      if (stored !== undefined && epoch !== undefined && !same(stored, epoch)) {
        throw new Error('another tab has put the copy of another history here');
      }
      const store = tx.objectStore(UPDATES);
      const added = updates.map((update) => request(store.add(update)));
      replaced.forEach((row) => store.delete(row));
      if (epochChanged && epoch !== undefined) facts.put(epoch, EPOCH);
      if (mark) facts.put(edit, this.tab);
      if (clear) facts.delete(this.tab);
      for (const [name, value] of adopted) {
        // A tab that is still there may have made another edit since.
        const now: unknown = await request(facts.get(name));
        if (now === value) facts.delete(name);
      }
      rows.push(...(await Promise.all(added)));
    } catch (error) {
      abort(tx);
      await done.catch(() => undefined);
      throw error;
    }
    await done;
    this.rows = whole ? rows : [...this.rows, ...rows];
    if (whole) this.incomplete = false;
    if (epochChanged) this.epochChanged = false;
    if (mark) this.marked = true;
    if (clear) this.marked = false;
    for (const [name] of adopted) this.adopted.delete(name);
    return edit;
  }
}

/** The names of forks that are kept on this device, of one document or of all. */
export async function listKept(of?: { url: string; document: string }): Promise<string[]> {
  const prefix = of === undefined ? PREFIX : `${localCopyName(trim(of.url), of.document)}${KEPT}`;
  const databases = await indexedDB.databases();
  const names = databases.flatMap(({ name }) => (name === undefined ? [] : [name]));
  return names.filter((name) => name.startsWith(prefix) && name.includes(KEPT));
}

/** A kept fork as one Yjs v1 update. Throws `CowriteError` with code `persistence`. */
export async function readKept(name: string): Promise<Uint8Array> {
  try {
    const db = await open(name);
    const rows = await request(db.transaction(UPDATES).objectStore(UPDATES).getAll());
    db.close();
    return Y.mergeUpdates(rows as Uint8Array[]);
  } catch (error) {
    throw failure('the fork cannot be read', error);
  }
}

/** Deletes a kept fork. */
export async function deleteKept(name: string): Promise<void> {
  await request(indexedDB.deleteDatabase(name));
}

function trim(url: string): string {
  return url.replace(/\/+$/, '');
}

function open(name: string): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    const opening = indexedDB.open(name, 1);
    const late = setTimeout(
      () => reject(new Error('the browser does not open its database')),
      OPEN_TIMEOUT,
    );
    opening.onupgradeneeded = () => {
      opening.result.createObjectStore(UPDATES, { autoIncrement: true });
      opening.result.createObjectStore(FACTS);
    };
    opening.onsuccess = () => {
      clearTimeout(late);
      resolve(opening.result);
    };
    opening.onerror = () => {
      clearTimeout(late);
      reject(opening.error ?? new Error('the database was not opened'));
    };
  });
}

function request<T>(of: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    of.onsuccess = () => resolve(of.result);
    of.onerror = () => reject(of.error ?? new Error('a request failed'));
  });
}

function finished(tx: IDBTransaction): Promise<void> {
  return new Promise((resolve, reject) => {
    tx.oncomplete = () => resolve();
    tx.onabort = () => reject(tx.error ?? new Error('a transaction was aborted'));
    tx.onerror = () => reject(tx.error ?? new Error('a transaction failed'));
  });
}

function abort(tx: IDBTransaction): void {
  try {
    tx.abort();
  } catch {
    // It has ended already.
  }
}

function same(a: unknown, b: Uint8Array | undefined): boolean {
  if (!(a instanceof Uint8Array) || b === undefined) return a === b;
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

function failure(what: string, cause: unknown): CowriteError {
  const why = cause instanceof Error ? cause.message : String(cause);
  return new CowriteError('persistence', `${what}: ${why}`, { cause });
}

let asked: Promise<boolean> | undefined;

/** Asks the browser once not to delete what is kept here when it needs room. */
function askToPersist(): Promise<boolean> {
  asked ??= (globalThis.navigator?.storage?.persist?.() ?? Promise.resolve(false)).catch(
    () => false,
  );
  return asked;
}
