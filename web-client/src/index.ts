// What applications use.
export { CowriteProvider } from './provider.js';
export type { ClosedEvent, CowriteEvents, CowriteOptions, ForkEvent } from './options.js';
export { CowriteError, type ErrorCode, type Reason } from './errors.js';
export type { SaveState } from './save-state.js';
export type { DocumentAccess } from './session.js';
export type { Status } from './state.js';
export type { Token } from './token.js';
export type { Refusal } from './unconfirmed.js';
export { deleteKept, listKept, readKept } from './persistence.js';
export {
  type DocumentInfo,
  type DocumentPage,
  type ListDocumentsOptions,
  listDocuments,
} from './documents.js';
