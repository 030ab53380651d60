// What can go wrong, by what the caller can do about it.
import { Code, ConnectError } from '@connectrpc/connect';
import { BinaryReader } from '@bufbuild/protobuf/wire';
import { type ErrorReason, ErrorReasonSchema } from './gen/cowrite/v1/error_pb.js';

/** Stable reasons of the server, as in error.proto, and `UNSPECIFIED` where it gave none. */
export type Reason = keyof typeof ErrorReason;

/**
 * What an error is to the caller:
 * - `lost`: the session was lost or could not be had; coming back may help,
 * - `rejected`: the server does not want this session; coming back the same way cannot help,
 * - `epoch`: the document has another history on the server,
 * - `not-saved`: an edit was not taken,
 * - `protocol`: the server broke the protocol,
 * - `token`: the application's token function failed,
 * - `persistence`: the local storage failed.
 */
export type ErrorCode =
  'lost' | 'rejected' | 'epoch' | 'not-saved' | 'protocol' | 'token' | 'persistence';

/** Every error of this package. */
export class CowriteError extends Error {
  override readonly name = 'CowriteError';
  readonly code: ErrorCode;
  readonly reason: Reason;
  /** How long the server asks to stay away, in milliseconds. */
  readonly retryAfter: number | undefined;

  constructor(
    code: ErrorCode,
    message: string,
    options: { reason?: Reason; retryAfter?: number | undefined; cause?: unknown } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.reason = options.reason ?? 'UNSPECIFIED';
    this.retryAfter = options.retryAfter;
  }
}

/** What a Closing frame announced. */
export interface ClosingNotice {
  readonly reason: Reason;
  readonly retryAfter: number | undefined;
}

const DOMAIN = 'cowrite';

/** The name of a reason; of one that this version does not know, `UNSPECIFIED`. */
export function reasonName(reason: number): Reason {
  const values: Record<number, { localName: string } | undefined> = ErrorReasonSchema.value;
  return (values[reason]?.localName as Reason | undefined) ?? 'UNSPECIFIED';
}

function isReason(name: string): name is Reason {
  return ErrorReasonSchema.values.some(({ localName }) => localName === name);
}

/**
 * Decides what the end of a call means. `closing` is what a Closing frame announced before: it counts
 * where the status itself says nothing.
 */
export function fromCall(error: unknown, closing?: ClosingNotice): CowriteError {
  if (error instanceof CowriteError) return error;
  const status = ConnectError.from(error);
  const details = readDetails(status);
  const reason = details.reason ?? closing?.reason ?? 'UNSPECIFIED';
  const retryAfter = details.retryAfter ?? closing?.retryAfter;
  const message = status.rawMessage === '' ? Code[status.code] : status.rawMessage;
  const code =
    reason === 'EPOCH_MISMATCH' ? 'epoch' : comesBack(status.code, reason) ? 'lost' : 'rejected';
  return new CowriteError(code, message, { reason, retryAfter, cause: error });
}

/** A new session can be better off than one that ended this way. */
export function comesBack(code: Code, reason: Reason): boolean {
  switch (code) {
    // connect-web reports a lost connection as Unknown; Cancelled comes from a connection that was
    // going away. One that this side cancelled is not asked about.
    case Code.Unknown:
    case Code.Internal:
    case Code.Unavailable:
    case Code.Canceled:
    case Code.Aborted:
    case Code.DeadlineExceeded:
      return true;
    case Code.ResourceExhausted:
      return !['UPDATE_TOO_LARGE', 'DOCUMENT_TOO_LARGE', 'MESSAGE_TOO_LARGE'].includes(reason);
    case Code.NotFound:
      return reason === 'UNKNOWN_SESSION';
    case Code.InvalidArgument:
    case Code.AlreadyExists:
    case Code.PermissionDenied:
    case Code.FailedPrecondition:
    case Code.OutOfRange:
    case Code.Unimplemented:
    case Code.DataLoss:
    case Code.Unauthenticated:
      return false;
  }
}

/** google.rpc.ErrorInfo and RetryInfo of a status: two small messages, read by hand. */
function readDetails(status: ConnectError): { reason?: Reason; retryAfter?: number } {
  const found: { reason?: Reason; retryAfter?: number } = {};
  for (const detail of status.details) {
    if (!('type' in detail)) continue;
    if (detail.type === 'google.rpc.ErrorInfo') {
      const fields = readFields(detail.value);
      const name = text(fields.get(1));
      if (text(fields.get(2)) === DOMAIN && isReason(name)) found.reason = name;
    } else if (detail.type === 'google.rpc.RetryInfo') {
      const delay = readFields(detail.value).get(1);
      if (delay instanceof Uint8Array) {
        const duration = readFields(delay);
        found.retryAfter =
          Number(duration.get(1) ?? 0) * 1000 + Number(duration.get(2) ?? 0) / 1_000_000;
      }
    }
  }
  return found;
}

/** The fields of a message by number, of those two wire types that occur here. */
function readFields(bytes: Uint8Array): Map<number, Uint8Array | bigint | string> {
  const fields = new Map<number, Uint8Array | bigint | string>();
  const reader = new BinaryReader(bytes);
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag();
    if (wireType === 2) fields.set(field, reader.bytes());
    else if (wireType === 0) fields.set(field, reader.int64());
    else reader.skip(wireType, field);
  }
  return fields;
}

function text(bytes: Uint8Array | bigint | string | undefined): string {
  return bytes instanceof Uint8Array ? new TextDecoder().decode(bytes) : '';
}

/** Brings an error of the application's own code to where such errors are looked for. */
export function report(error: unknown): void {
  queueMicrotask(() => {
    throw error;
  });
}

/** Does what the application's own code may break, without being broken by it. */
export function guard(action: () => void): void {
  try {
    action();
  } catch (error) {
    report(error);
  }
}
