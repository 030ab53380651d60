// Where we are: which page, which document, which server; and the links between them.

export type Kind = 'text' | 'rich';

/** What the address names. */
export type Place =
  | { readonly page: 'list' }
  | { readonly page: 'document'; readonly kind: Kind; readonly document: string }
  | { readonly page: 'unknown'; readonly reason: string };

/** The longest document id, in bytes: the server's limit. */
const DOCUMENT_ID_BYTES_MAX = 128;

/** Rich-text documents that are made here begin with it, so that a list knows which page opens them. */
const RICH_PREFIX = 'rich/';
const TEXT_PREFIX = 'notes/';

/** Says what is wrong with a document id, or `null`. The same rules as the server's. */
export function documentIdFault(id: string): string | null {
  if (id === '') return 'The link has no document in it.';
  if (!/^[A-Za-z0-9._~:@+/-]*$/.test(id)) {
    return 'The name of a document has letters, digits and . _ ~ : @ + - / in it, and nothing else.';
  }
  if (id.length > DOCUMENT_ID_BYTES_MAX)
    return `The name of a document has at most ${DOCUMENT_ID_BYTES_MAX} characters.`;
  if (id.split('/').some((segment) => segment === '' || segment === '.' || segment === '..')) {
    return 'The name of a document has no empty part between slashes, and none that is . or ..';
  }
  return null;
}

/** Which page opens a document of the list. */
export function kindOf(document: string): Kind {
  return document.startsWith(RICH_PREFIX) ? 'rich' : 'text';
}

/** The name people read, and the folders before it. */
export function titleOf(document: string): { readonly title: string; readonly folder: string } {
  const at = document.lastIndexOf('/') + 1;
  return { title: document.slice(at), folder: document.slice(0, at) };
}

/** Reads an address. */
export function placeOf(pathname: string): Place {
  const match = /^\/([dr])\/(.*)$/.exec(pathname);
  if (!match)
    return pathname === '/'
      ? { page: 'list' }
      : { page: 'unknown', reason: 'There is nothing at this address.' };
  let document: string;
  try {
    document = decodeURIComponent(match[2] ?? '');
  } catch {
    return { page: 'unknown', reason: 'The link is damaged.' };
  }
  const fault = documentIdFault(document);
  if (fault) return { page: 'unknown', reason: fault };
  return { page: 'document', kind: match[1] === 'r' ? 'rich' : 'text', document };
}

/** The server that is spoken to: the one this page came from, or the one in `?server=`. */
export function serverUrl(): string {
  const given = new URLSearchParams(location.search).get('server');
  if (given && /^https?:\/\//.test(given) && URL.canParse(given)) return given.replace(/\/+$/, '');
  return import.meta.env.DEV ? 'http://127.0.0.1:8080' : location.origin;
}

/** A link inside the page. Keeps `?server=`, and nothing else: a token is never in a link. */
export function linkTo(place: { readonly kind: Kind; readonly document: string } | 'list'): string {
  const given = new URLSearchParams(location.search).get('server');
  const query = given ? `?server=${encodeURIComponent(given)}` : '';
  // Every character of a document id may stand in a path as it is.
  return (
    (place === 'list' ? '/' : `/${place.kind === 'rich' ? 'r' : 'd'}/${place.document}`) + query
  );
}

const ADJECTIVES =
  'amber bold brave bright calm clear cosy crisp eager early fair fond gentle glad golden green happy honest keen kind light lively lucky mellow merry mild misty neat noble quick quiet rapid ready rosy silver smooth steady still sunny swift tidy vivid warm wise'.split(
    ' ',
  );
const ANIMALS =
  'badger beaver bison crane deer dolphin dove eagle falcon ferret finch fox gecko hare hawk heron ibex jay kestrel koala lark lemur lynx marten mole newt orca otter owl panda puffin quail raven robin seal sparrow stork swan tern tiger toad trout vole walrus wren'.split(
    ' ',
  );

function pick(words: readonly string[]): string {
  return words[crypto.getRandomValues(new Uint32Array(1))[0]! % words.length]!;
}

/** A new document id that can be read out to somebody. About five million of a kind. */
export function newDocumentId(kind: Kind): string {
  const number = crypto.getRandomValues(new Uint32Array(1))[0]! % 2500;
  return `${kind === 'rich' ? RICH_PREFIX : TEXT_PREFIX}${pick(ADJECTIVES)}-${pick(ANIMALS)}-${number}`;
}

/** A document id made of what somebody typed, or `null` when nothing is left of it. */
export function documentIdFrom(kind: Kind, typed: string): string | null {
  const cleaned = typed
    .normalize('NFKD')
    .replace(/[\u0300-\u036f]/g, '')
    .replace(/\s+/g, '-')
    .replace(/[^A-Za-z0-9._~:@+/-]/g, '');
  const named =
    cleaned.includes('/') && kind === 'text'
      ? cleaned
      : (kind === 'rich' ? RICH_PREFIX : TEXT_PREFIX) + cleaned;
  return cleaned && documentIdFault(named) === null ? named : null;
}

/** A name for somebody who has not given one. */
export function guestName(): string {
  const capital = (word: string) => word.charAt(0).toUpperCase() + word.slice(1);
  return `${capital(pick(ADJECTIVES))} ${capital(pick(ANIMALS))}`;
}
