// What lies above the page for a while: popovers anchored to a button, and toasts.
import { type Cleanup, h } from './dom.ts';

/** How long a toast can be read. */
const TOAST_MS = 6000;

/** Opens `content` under `button` and closes it with Escape, a click outside, or the button. */
export function attachPopover(
  button: HTMLButtonElement,
  content: HTMLElement,
  onOpen?: () => void,
): Cleanup {
  content.setAttribute('popover', 'auto');
  content.classList.add('popover');
  button.popoverTargetElement = content;
  button.setAttribute('aria-haspopup', 'dialog');
  button.setAttribute('aria-expanded', 'false');
  document.body.append(content);
  const place = () => {
    const anchor = button.getBoundingClientRect();
    const width = content.offsetWidth;
    const left = Math.max(
      8,
      Math.min(anchor.left, document.documentElement.clientWidth - width - 8),
    );
    content.style.left = `${left}px`;
    content.style.top = `${anchor.bottom + 8}px`;
  };
  const toggled = (event: Event) => {
    const open = (event as ToggleEvent).newState === 'open';
    button.setAttribute('aria-expanded', String(open));
    if (!open) return;
    place();
    onOpen?.();
  };
  content.addEventListener('toggle', toggled);
  addEventListener('resize', place);
  return () => {
    removeEventListener('resize', place);
    content.remove();
  };
}

let current: HTMLElement | null = null;

/** Says something for a few seconds. A newer one takes the place of an older. */
export function toast(text: string): void {
  current?.remove();
  const element = h('div', { class: 'toast', role: 'status' });
  document.body.append(element);
  // After it is in the page, so that it is read out.
  element.textContent = text;
  current = element;
  setTimeout(() => {
    element.remove();
    if (current === element) current = null;
  }, TOAST_MS);
}

/** Copies text, also where the page was not loaded over a secure connection. */
export async function copyText(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = h('textarea', { class: 'visually-hidden', readonly: true });
    area.value = text;
    document.body.append(area);
    area.select();
    const copied = document.execCommand('copy');
    area.remove();
    return copied;
  }
}
