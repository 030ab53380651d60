// The way to the server: Subscribe streams down, Publish carries frames up.
import type { MessageInitShape } from '@bufbuild/protobuf';
import { type Client, type Transport as Rpc, createClient } from '@connectrpc/connect';
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

/** gRPC-Web to the server at `url`. `fetch` replaces the one of the platform. */
export function grpcWebTransport(url: string, fetch?: typeof globalThis.fetch): Transport {
  const client = createClient(CollaborationService, rpc(url, fetch));
  let lasting: Client<typeof CollaborationService> | undefined;
  return {
    async *subscribe(join, signal) {
      for await (const response of client.subscribe({ join }, { signal })) {
        yield response.frames.map((frame) => frame.frame);
      }
    },
    async publish(key, frames, { signal, timeout, keepalive }) {
      const request = {
        sessionId: key.id,
        sessionSecret: key.secret,
        frames: frames.map((frame) => ({ frame })),
      };
      if (keepalive) {
        lasting ??= createClient(CollaborationService, rpc(url, keepAlive(fetch)));
        await lasting.publish(request, { signal });
      } else {
        await client.publish(request, { signal, timeoutMs: timeout });
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
