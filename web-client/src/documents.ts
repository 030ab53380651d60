// What documents there are on a server.
import { fromCall } from './errors.js';
import { DocumentService } from './gen/cowrite/v1/document_pb.js';
import { type Token, tokenText } from './token.js';
import { rpc } from './transport.js';

/** In milliseconds. */
const LIST_TIMEOUT = 10_000;

/** What to list. */
export interface ListDocumentsOptions {
  /** The server's address, such as `https://docs.example.org`. */
  readonly url: string;
  readonly token?: Token | undefined;
  /** How many at the most: 1 to 1000, 100 by default. */
  readonly pageSize?: number | undefined;
  /** `nextPageToken` of the page before. */
  readonly pageToken?: string | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly fetch?: typeof globalThis.fetch | undefined;
}

/** A document in a list. */
export interface DocumentInfo {
  readonly id: string;
  /** The sequence of its last durable edit; 0 when it has none. */
  readonly sequence: bigint;
  /** How many sessions are in it on this server now. */
  readonly sessions: number;
}

/** A page of a list. */
export interface DocumentPage {
  /** In the order of their ids. */
  readonly documents: readonly DocumentInfo[];
  /** For the next page; `undefined` when this is the last. */
  readonly nextPageToken: string | undefined;
}

/** Lists documents, a page at a time. Throws `CowriteError`. */
export async function listDocuments(options: ListDocumentsOptions): Promise<DocumentPage> {
  const token = await tokenText(options.token);
  try {
    const { message: page } = await rpc(options.url, options.fetch).unary(
      DocumentService.method.listDocuments,
      options.signal,
      LIST_TIMEOUT,
      token === '' ? undefined : { authorization: `Bearer ${token}` },
      { pageSize: options.pageSize ?? 0, pageToken: options.pageToken ?? '' },
    );
    return {
      documents: page.documents.map(({ id, sequence, sessions }) => ({ id, sequence, sessions })),
      nextPageToken: page.nextPageToken === '' ? undefined : page.nextPageToken,
    };
  } catch (error) {
    throw fromCall(error);
  }
}
