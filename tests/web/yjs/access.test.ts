// Who may do what: tokens through the doors of the Yjs providers, with the same meaning as in gRPC.

import { describe, expect } from 'vitest';
import { cat, type } from '../src/native.ts';
import { HOCUSPOCUSES, KINDS, Y_WEBSOCKETS } from '../src/participant.ts';
import { takesTokens } from '../src/token.ts';
import { stays, until } from '../src/wait.ts';
import { converged, sees, synced, test } from '../src/world.ts';

/** How long a refused edit is given to appear somewhere after all. */
const SETTLE_MS = 1_000;

/** Longer than the first five attempts of a provider that would try again. */
const ATTEMPTS_MS = 4_000;

/** How long short tokens are good for. */
const SHORT_S = 4;

describe.skipIf(!takesTokens())('with tokens', () => {
  describe.each(KINDS)('%s', (kind) => {
    test('a token that grants writing lets write', async ({ world }) => {
      const issuer = world.issuer();
      const { door } = await world.server(issuer.settings);
      const token = issuer.token({ 'team/': 'write' });
      const one = await world.join(door, { kind, document: 'team/doc', token });
      one.type('granted');
      const other = await world.join(door, { kind: 'y-websocket', document: 'team/doc', token });
      await converged([one, other], 'granted');
      expect(await cat(door, { document: 'team/doc', token })).toBe('granted');
    });

    test('who may only read sees edits and cursors, shows a cursor, and changes nothing', async ({
      world,
    }) => {
      const issuer = world.issuer();
      const { door } = await world.server(issuer.settings);
      const document = 'doc';
      const write = issuer.token({ doc: 'write' }, { subject: 'writer' });
      const read = issuer.token({ doc: 'read' }, { subject: 'reader' });
      const writer = await world.join(door, {
        kind: 'y-websocket',
        document,
        token: write,
        user: 'writer',
      });
      writer.type('text');
      const reader = await world.join(door, { kind, document, token: read, user: 'reader' });
      await converged([writer, reader], 'text');
      await sees([writer, reader], ['reader', 'writer']);
      reader.type('forbidden ', 0);
      await stays('unchanged for others', () => writer.text() === 'text', SETTLE_MS);
      expect(await cat(door, { document, token: read })).toBe('text');
      // The reader goes on to read, and with a close code that stops it for good it would not.
      writer.type('!');
      await until('the reader to see more', () => reader.text() === 'forbidden text!');
      expect(reader.watch).toMatchObject({ opened: 1, closes: [] });
    });
  });

  describe.each(HOCUSPOCUSES)('%s', (kind) => {
    test('a reader is told so, and what he types stays unsaved', async ({ world }) => {
      const issuer = world.issuer();
      const { door } = await world.server(issuer.settings);
      const reader = await world.join(door, {
        kind,
        document: 'doc',
        token: issuer.token({ doc: 'read' }),
      });
      expect(reader.scope()).toBe('readonly');
      await until('nothing to be unsaved', () => !reader.hasUnsyncedChanges());
      reader.type('forbidden');
      await stays('unsaved', () => reader.hasUnsyncedChanges(), SETTLE_MS);
      expect(reader.watch).toMatchObject({ opened: 1, closes: [] });
    });

    test('a writer is told so', async ({ world }) => {
      const issuer = world.issuer();
      const { door } = await world.server(issuer.settings);
      const writer = await world.join(door, {
        kind,
        document: 'doc',
        token: issuer.token({ doc: 'write' }),
      });
      expect(writer.scope()).toBe('read-write');
    });

    test('a refusal is in-band, and the other documents of the socket go on', async ({ world }) => {
      const issuer = world.issuer();
      const { door } = await world.server(issuer.settings);
      const socket = world.socket(door, kind);
      const token = issuer.token({ mine: 'write' });
      const mine = await world.join(door, { kind, document: 'mine', token }, socket);
      const refused = [
        world.open(door, { kind, document: 'not-mine', token }, socket),
        world.open(door, { kind, document: 'none', token: '' }, socket),
        world.open(door, { kind, document: 'noise', token: 'noise' }, socket),
        world.open(
          door,
          { kind, document: 'expired', token: issuer.token({ '': 'write' }, { seconds: -60 }) },
          socket,
        ),
        world.open(
          door,
          { kind, document: 'foreign', token: world.issuer().token({ '': 'write' }) },
          socket,
        ),
      ];
      for (const one of refused) {
        await until(`${one.document} to be refused`, () => one.denied.length > 0);
        expect([one.synced(), one.authenticated()]).toEqual([false, false]);
      }
      mine.type('goes on');
      await until('the document to be saved', () => !mine.hasUnsyncedChanges());
      expect(socket.watch).toMatchObject({ opened: 1, closes: [] });
    });

    test('after a refusal a better token is taken on the same socket', async ({ world }) => {
      const issuer = world.issuer();
      const { door } = await world.server(issuer.settings);
      const socket = world.socket(door, kind);
      const one = world.open(door, { kind, document: 'doc', token: 'noise' }, socket);
      await until('the refusal', () => one.denied.length > 0);
      one.setToken(issuer.token({ doc: 'write' }), false);
      one.detach();
      one.attach();
      await synced(one);
      one.type('taken');
      await until('the edit to be saved', () => !one.hasUnsyncedChanges());
      expect(socket.watch).toMatchObject({ opened: 1, closes: [] });
    });

    test('a token that expires ends the document and nothing else', async ({ world }) => {
      const issuer = world.issuer();
      const { door } = await world.server(issuer.settings);
      const document = 'doc';
      const socket = world.socket(door, kind);
      const token = issuer.token({ '': 'write' });
      const other = await world.join(door, { kind, document: 'other', token }, socket);
      const witness = await world.join(door, {
        kind: 'y-websocket',
        document,
        token,
        user: 'witness',
      });
      const short = issuer.token({ doc: 'write' }, { seconds: SHORT_S });
      const one = await world.join(door, { kind, document, token: short, user: 'short' }, socket);
      await sees([witness], ['short', 'witness']);
      await until('the end', () => one.detached.length + one.denied.length > 0);
      await sees([witness], ['witness']);
      one.type('too late');
      await stays('nobody to see it', () => witness.text() === '', SETTLE_MS);
      expect(one.hasUnsyncedChanges()).toBe(true);
      other.type('goes on');
      await until('the other document to be saved', () => !other.hasUnsyncedChanges());
      expect(socket.watch).toMatchObject({ opened: 1, closes: [] });
    });

    test('a new token before the old one expires lets the session go on', async ({ world }) => {
      const issuer = world.issuer();
      const { door } = await world.server(issuer.settings);
      const short = issuer.token({ doc: 'write' }, { seconds: SHORT_S });
      const one = await world.join(door, { kind, document: 'doc', token: short });
      one.setToken(issuer.token({ doc: 'write' }));
      await stays(
        'attached',
        () => one.detached.length + one.denied.length === 0,
        (SHORT_S + 2) * 1000,
      );
      one.type('still here');
      await until('the edit to be saved', () => !one.hasUnsyncedChanges());
      expect(one.watch).toMatchObject({ opened: 1, closes: [] });
    });

    test('the server asks for a new token before the old one expires', async ({ world }) => {
      const issuer = world.issuer();
      const { door } = await world.server(issuer.settings);
      const short = issuer.token({ doc: 'write' }, { seconds: SHORT_S });
      const one = await world.join(door, { kind, document: 'doc', token: short });
      // Not sent: it is there for when the token function is asked.
      one.setToken(issuer.token({ doc: 'write' }), false);
      await stays(
        'attached',
        () => one.detached.length + one.denied.length === 0,
        (SHORT_S + 2) * 1000,
      );
      one.type('still here');
      await until('the edit to be saved', () => !one.hasUnsyncedChanges());
    });

    test('a new token of somebody else, or for something else, ends the document', async ({
      world,
    }) => {
      const issuer = world.issuer();
      const { door } = await world.server(issuer.settings);
      for (const token of [
        issuer.token({ doc: 'write' }, { subject: 'mallory' }),
        issuer.token({ other: 'write' }),
        'noise',
      ]) {
        const one = await world.join(door, {
          kind,
          document: 'doc',
          token: issuer.token({ doc: 'write' }),
        });
        one.setToken(token);
        await until('the end', () => one.detached.length + one.denied.length > 0);
        one.destroy();
      }
    });
  });

  describe.each(Y_WEBSOCKETS)('%s', (kind) => {
    test('no token is closed with 4401, a token without the grant with 4403', async ({ world }) => {
      const issuer = world.issuer();
      const { door } = await world.server(issuer.settings);
      const cases = [
        { token: undefined, code: 4401 },
        { token: 'noise', code: 4401 },
        { token: issuer.token({ '': 'write' }, { seconds: -60 }), code: 4401 },
        { token: world.issuer().token({ '': 'write' }), code: 4401 },
        { token: issuer.token({ other: 'write' }), code: 4403 },
        { token: issuer.token({}), code: 4403 },
      ];
      for (const { token, code } of cases) {
        const one = world.open(door, {
          kind,
          document: 'doc',
          ...(token === undefined ? {} : { token }),
        });
        await until('the close', () => one.watch.closes.length > 0);
        expect(one.watch.closes[0]).toMatchObject({ code });
        expect(one.synced()).toBe(false);
        one.destroy();
      }
    });

    test('a token that expires ends the session, and coming back with it is refused', async ({
      world,
    }) => {
      const issuer = world.issuer();
      const { door } = await world.server(issuer.settings);
      const short = issuer.token({ doc: 'write' }, { seconds: SHORT_S });
      const one = await world.join(door, { kind, document: 'doc', token: short });
      one.type('in time');
      await until('the refusal', () => one.watch.closes.length > 1);
      expect(one.watch.closes.slice(0, 2)).toMatchObject([{ code: 1013 }, { code: 4401 }]);
      expect(await cat(door, { document: 'doc', token: issuer.token({ doc: 'read' }) })).toBe(
        'in time',
      );
      one.setToken(issuer.token({ doc: 'write' }));
      one.connect();
      await synced(one);
      one.type(' and again');
      const token = issuer.token({ doc: 'read' });
      const reader = await world.join(door, { kind, document: 'doc', token });
      await converged([one, reader], 'in time and again');
    });

    test('a token that is replaced in time is used when the old one expires', async ({ world }) => {
      const issuer = world.issuer();
      const { door } = await world.server(issuer.settings);
      const short = issuer.token({ doc: 'write' }, { seconds: SHORT_S });
      const one = await world.join(door, { kind, document: 'doc', token: short });
      one.setToken(issuer.token({ doc: 'write' }));
      one.type('before');
      await until('the end of the old token', () => one.watch.closes.length > 0);
      expect(one.watch.closes[0]).toMatchObject({ code: 1013 });
      one.type(' and after');
      const token = issuer.token({ doc: 'read' });
      const reader = await world.join(door, { kind, document: 'doc', token });
      await converged([one, reader], 'before and after');
    });
  });

  test('y-websocket 3 stops at 4401 and 4403, and goes on when it is told to', async ({
    world,
  }) => {
    const issuer = world.issuer();
    const { door } = await world.server(issuer.settings);
    const all = ['noise', issuer.token({ other: 'write' })].map((token) =>
      world.open(door, { kind: 'y-websocket', document: 'doc', token }),
    );
    await until('both to be stopped', () => all.every((one) => one.stopped.length > 0));
    expect(all.map((one) => one.stopped[0]?.code)).toEqual([4401, 4403]);
    await stays('one attempt each', () => all.every((one) => one.watch.opened === 1), ATTEMPTS_MS);
    for (const one of all) {
      one.setToken(issuer.token({ doc: 'write' }));
      one.connect();
    }
    await synced(...all);
  });

  test('a page sees the refusal of its token, and is not refused the handshake', async ({
    world,
  }) => {
    const issuer = world.issuer();
    const browser = await world.browser();
    const { ws } = await world.server({
      ...issuer.settings,
      'transport.allowed_origins': `["${browser.origin}"]`,
    });
    const tab = await browser.tab();
    const one = await tab.open({ kind: 'y-websocket', document: 'doc', ws, token: 'noise' });
    await until('the page to be refused', async () => (await one.sockets()).closes.length > 0);
    expect((await one.sockets()).closes).toMatchObject([{ code: 4401 }]);
    expect(await one.wantsToConnect()).toBe(false);
  });

  test('a native client and a provider have the same rights by the same token', async ({
    world,
  }) => {
    const issuer = world.issuer();
    const { door } = await world.server(issuer.settings);
    const read = issuer.token({ doc: 'read' });
    await expect(type(door, { document: 'doc', token: read }, 'forbidden')).rejects.toThrow();
    await type(door, { document: 'doc', token: issuer.token({ doc: 'write' }) }, 'allowed');
    expect(await cat(door, { document: 'doc', token: read })).toBe('allowed');
  });
});
