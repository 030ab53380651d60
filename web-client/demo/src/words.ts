// The states of a session in words. Pure, so that what people read is in one place.
import type { IconName } from './dom.ts';
import type { Closed, SessionView } from './session.ts';

interface Words {
  readonly text: string;
  readonly hint: string;
  readonly icon: IconName;
  readonly tone: 'good' | 'busy' | 'care' | 'bad';
}

/** Who may only comment reads here: the demo has no comments. Before the first answer nobody knows. */
export function mayEdit(view: SessionView): boolean {
  return view.access === undefined || view.access === 'write';
}

export function saveWords(view: SessionView): Words {
  switch (view.state) {
    case 'saved':
      return {
        text: 'Saved',
        hint: 'All edits are on the disk of the server.',
        icon: 'check',
        tone: 'good',
      };
    case 'saving':
      return {
        text: 'Saving…',
        hint: 'On the way to the disk of the server.',
        icon: 'saving',
        tone: 'busy',
      };
    case 'offline-kept':
      return {
        text: 'Offline: kept on this device',
        hint: 'Your edits are stored in this browser, and go to the server when it can be reached.',
        icon: 'device',
        tone: 'care',
      };
    case 'not-saved':
      return {
        text: `Not saved: ${whyNotSaved(view)}`,
        hint: 'Your latest edits are only in this tab. Keep it open.',
        icon: 'alert',
        tone: 'bad',
      };
  }
}

function whyNotSaved(view: SessionView): string {
  if (!mayEdit(view)) return 'you may only read';
  if (view.refused) return refusal({ reason: view.refused, message: '', permanent: false }).short;
  if (view.closed) return refusal(view.closed).short;
  return view.status === 'connected' ? 'the server did not take an edit' : 'no connection';
}

export function connectionWords(view: SessionView): Words {
  if (view.paused)
    return {
      text: 'Working offline',
      hint: 'You switched the connection off.',
      icon: 'wifi-off',
      tone: 'care',
    };
  switch (view.status) {
    case 'connected':
      return {
        text: 'Connected',
        hint: 'Others see what you type as you type.',
        icon: 'wifi',
        tone: 'good',
      };
    case 'connecting':
      return { text: 'Connecting…', hint: 'Looking for the server.', icon: 'wifi', tone: 'busy' };
    case 'disconnected':
      return view.closed?.permanent
        ? { text: 'Disconnected', hint: refusal(view.closed).long, icon: 'wifi-off', tone: 'bad' }
        : {
            text: 'No connection',
            hint: 'The page tries again by itself.',
            icon: 'wifi-off',
            tone: 'care',
          };
  }
}

interface Refusal {
  /** Goes on after "Not saved: ". */
  readonly short: string;
  /** A title and sentences. */
  readonly title: string;
  readonly long: string;
}

/** What a refusal means for the person who reads it. */
export function refusal(closed: Closed): Refusal {
  switch (closed.reason) {
    case 'UNAUTHENTICATED':
    case 'TOKEN_EXPIRED':
    case 'TOKEN_REVOKED':
      return {
        short: 'a token is needed',
        title: 'This document needs an access token',
        long: 'Ask whoever runs the server for one. It is kept in this tab only.',
      };
    case 'FORBIDDEN':
    case 'SUBJECT_CHANGED':
      return {
        short: 'no access',
        title: 'You have no access to this document',
        long: 'The token you use does not open it.',
      };
    case 'WRITE_DENIED':
      return {
        short: 'you may only read',
        title: 'You may read this document, and not write in it',
        long: 'What you typed stays in this browser.',
      };
    case 'EPOCH_MISMATCH':
      return {
        short: 'the document was replaced',
        title: 'The document was replaced on the server',
        long: 'Your copy comes from an older one, and joining the two would double the text. Your copy is kept in this browser.',
      };
    case 'DOCUMENT_DELETED':
      return {
        short: 'the document was deleted',
        title: 'This document was deleted',
        long: 'What you see is the copy in this browser. Copy out what you want to keep.',
      };
    case 'DOCUMENT_CORRUPT':
    case 'DOCUMENT_QUARANTINED':
      return {
        short: 'the document is damaged on the server',
        title: 'The server has set this document aside',
        long: 'It found damage and stops before it could spread. Whoever runs the server has to look. Your edits are kept in this browser.',
      };
    case 'DOCUMENT_TOO_LARGE':
      return {
        short: 'the document is full',
        title: 'The document is as large as the server allows',
        long: 'Make it smaller, or go on in a new one.',
      };
    case 'UPDATE_TOO_LARGE':
    case 'MESSAGE_TOO_LARGE':
      return {
        short: 'the edit is too large',
        title: 'The edit was too large for the server',
        long: 'Insert it in smaller parts.',
      };
    case 'LOG_FULL':
      return {
        short: 'the disk of the server is full',
        title: 'The disk of the server is full',
        long: 'Edits wait here until there is room.',
      };
    case 'BAD_DOCUMENT_ID':
      return {
        short: 'the name is not allowed',
        title: 'The server does not allow this name',
        long: closed.message,
      };
    case 'UNSUPPORTED_PROTOCOL_VERSION':
      return {
        short: 'this page is out of date',
        title: 'This page and the server do not understand each other',
        long: 'Reload the page to get the version that belongs to the server.',
      };
    default:
      return {
        short: closed.permanent ? 'the server refused' : 'no connection',
        title: closed.permanent ? 'The server ended the session' : 'The connection was lost',
        long: sentence(closed.message || closed.reason),
      };
  }
}

/** Messages of the server begin in lower case and have no full stop. */
function sentence(message: string): string {
  const text = message.trim();
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? '' : '.');
}
