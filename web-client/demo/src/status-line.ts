// Connection and save state, in words: beside the title, always visible.
import { type Cleanup, h, icon, setText } from './dom.ts';
import type { DocumentSession } from './session.ts';
import { connectionWords, saveWords } from './words.ts';

/** How long "Saving…" stays at least, so that the words can be read. It never says "Saved" too early. */
const SAVING_SHOWN_MS = 450;
/** Screen readers are told what lasts, not every keystroke. */
const ANNOUNCE_AFTER_MS = 1200;

export function statusLine(session: DocumentSession, cleanups: Cleanup[]): HTMLElement {
  const connection = h('span', { class: 'state', 'data-testid': 'connection' });
  const save = h('span', { class: 'state', 'data-testid': 'save-state' });
  const announcer = h('span', { class: 'visually-hidden', role: 'status', 'aria-live': 'polite' });
  const line = h('div', { class: 'status-line' }, connection, save, announcer);

  let savingUntil = 0;
  let again: ReturnType<typeof setTimeout> | undefined;
  let announce: ReturnType<typeof setTimeout> | undefined;
  let said = '';

  const show = (element: HTMLElement, words: ReturnType<typeof saveWords>) => {
    if (element.dataset.shown === words.text) return;
    element.dataset.shown = words.text;
    element.dataset.tone = words.tone;
    element.title = words.hint;
    element.replaceChildren(icon(words.icon), h('span', { text: words.text }));
  };

  const refresh = () => {
    const view = session.view();
    const now = performance.now();
    if (view.state === 'saving') savingUntil = now + SAVING_SHOWN_MS;
    clearTimeout(again);
    const held = view.state === 'saved' && now < savingUntil;
    if (held) again = setTimeout(refresh, savingUntil - now);
    const shownState = held ? 'saving' : view.state;
    const saveText = saveWords({ ...view, state: shownState });
    const connectionText = connectionWords(view);
    show(connection, connectionText);
    show(save, saveText);
    connection.dataset.status = view.status;
    save.dataset.state = shownState;
    const words = `${connectionText.text}. ${saveText.text}.`;
    clearTimeout(announce);
    if (words !== said && shownState !== 'saving') {
      announce = setTimeout(() => {
        said = words;
        setText(announcer, words);
      }, ANNOUNCE_AFTER_MS);
    }
  };
  refresh();
  cleanups.push(session.onChange(refresh), () => {
    clearTimeout(again);
    clearTimeout(announce);
  });
  return line;
}
