// The way to the server: Subscribe streams down, Publish carries frames up.
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { Transport as Rpc } from '@connectrpc/connect';
import { createGrpcWebTransport } from '@connectrpc/connect-web';
import {
  type ClientFrameSchema,
  CollaborationService,
  type JoinSchema,
  type ServerFrame,
} from './gen/cowrite/v1/collaboration_pb.js';

/** A frame from the server. A frame of a kind that this version does not know has no case. */
export type DownFrame = ServerFrame['frame'];
/** A frame to the server. */
export type UpFrame = NonNullable<MessageInitShape<typeof ClientFrameSchema>['frame']>;
/** The frame that opens a session. */
export type JoinFrame = MessageInitShape<typeof JoinSchema>;

/** Names a session and proves that it is ours. */
export interface SessionKey {
  readonly id: string;
  readonly secret: Uint8Array;
}

/** How to publish. */
export interface PublishOptions {
  readonly signal: AbortSignal;
  /** In milliseconds. */
  readonly timeout: number;
  /** The call may outlive the page. At most 64 KiB for all such calls of a page together. */
  readonly keepalive?: boolean;
}

/** What a session needs of the network. Errors are those of the calls, see `fromCall`. */
export interface Transport {
  subscribe(join: JoinFrame, signal: AbortSignal): AsyncIterable<readonly DownFrame[]>;
  publish(key: SessionKey, frames: readonly UpFrame[], options: PublishOptions): Promise<void>;
}

/**
 * gRPC-Web to the server at `url`. `fetch` replaces the one of the platform. The methods are called
 * without a generated client, which would bring along the kinds of streams that browsers do not have.
 */
export function grpcWebTransport(url: string, fetch?: typeof globalThis.fetch): Transport {
  const { subscribe, publish } = CollaborationService.method;
  const usual = rpc(url, fetch);
  let lasting: Rpc | undefined;
  return {
    async *subscribe(join, signal) {
      const request = (async function* () {
        yield { join };
      })();
      const responses = await usual.stream(subscribe, signal, undefined, undefined, request);
      for await (const { frames } of responses.message) yield frames.map((frame) => frame.frame);
    },
    async publish(key, frames, { signal, timeout, keepalive }) {
      const request = {
        sessionId: key.id,
        sessionSecret: key.secret,
        frames: frames.map((frame) => ({ frame })),
      };
      if (keepalive) {
        lasting ??= rpc(url, keepAlive(fetch));
        await lasting.unary(publish, signal, undefined, undefined, request);
      } else {
        await usual.unary(publish, signal, timeout, undefined, request);
      }
    },
  };
}

/** The gRPC-Web transport that all services share. */
export function rpc(url: string, fetch?: typeof globalThis.fetch): Rpc {
  return createGrpcWebTransport({ baseUrl: url, ...(fetch === undefined ? {} : { fetch }) });
}

function keepAlive(fetch?: typeof globalThis.fetch): typeof globalThis.fetch {
  return (input, init) => (fetch ?? globalThis.fetch)(input, { ...init, keepalive: true });
}
