// Elements, made by hand: a small builder, icons, and what closes again.

/** Undoes what a call began: a subscription, a timer, a mounted part. */
export type Cleanup = () => void;

type Child = Node | string | null | undefined | false;

interface Properties {
  readonly class?: string;
  readonly text?: string;
  readonly on?: {
    readonly [K in keyof HTMLElementEventMap]?: (event: HTMLElementEventMap[K]) => void;
  };
  readonly [attribute: string]: unknown;
}

/** Makes an element. Attributes with `null`, `undefined` or `false` are left out; `true` is empty. */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  properties: Properties = {},
  ...children: readonly Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === 'class') element.className = String(value);
    else if (name === 'text') element.textContent = String(value);
    else if (name === 'on') {
      for (const [event, listener] of Object.entries(value as Record<string, EventListener>)) {
        element.addEventListener(event, listener);
      }
    } else element.setAttribute(name, value === true ? '' : String(value));
  }
  element.append(
    ...children.filter(
      (child): child is Node | string => child !== null && child !== undefined && child !== false,
    ),
  );
  return element;
}

/** Sets the text only when it differs, so that screen readers hear changes and nothing else. */
export function setText(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

/** Runs all of them, last first. */
export function cleanupAll(cleanups: Cleanup[]): void {
  for (const cleanup of cleanups.splice(0).reverse()) cleanup();
}

/** Whether the reader asked for less motion. */
export function reducedMotion(): boolean {
  return matchMedia('(prefers-reduced-motion: reduce)').matches;
}

/** Strokes on a 24 by 24 grid. */
const ICONS = {
  check: 'M5 12.5l4.5 4.5L19 7.5',
  saving: 'M12 4a8 8 0 1 1-7.4 5',
  device: 'M4.5 5.5h15v10h-15zM2.5 19h19M9 19l.4-3.5M15 19l-.4-3.5',
  alert: 'M12 4L2.8 19.5h18.4zM12 10v4.2M12 17v.1',
  info: 'M12 3.5a8.5 8.5 0 1 0 0 17a8.5 8.5 0 1 0 0-17M12 11v5M12 8v.1',
  wifi: 'M3 9.5a13 13 0 0 1 18 0M6.3 13a8.3 8.3 0 0 1 11.4 0M9.5 16.3a3.6 3.6 0 0 1 5 0M12 19.4v.1',
  'wifi-off':
    'M4 3.5l16.5 17M3 9.5a13 13 0 0 1 3.4-2.3M11 6.1a13 13 0 0 1 10 3.4M6.3 13a8.3 8.3 0 0 1 4-2.2M9.5 16.3a3.6 3.6 0 0 1 5 0M12 19.4v.1',
  link: 'M10 14a4 4 0 0 0 5.7 0l3-3a4 4 0 0 0-5.7-5.7l-1 1M14 10a4 4 0 0 0-5.7 0l-3 3a4 4 0 0 0 5.7 5.7l1-1',
  sun: 'M12 8a4 4 0 1 0 0 8a4 4 0 1 0 0-8M12 2.5v2M12 19.5v2M2.5 12h2M19.5 12h2M5.3 5.3l1.4 1.4M17.3 17.3l1.4 1.4M18.7 5.3l-1.4 1.4M6.7 17.3l-1.4 1.4',
  moon: 'M20 13.6A8 8 0 1 1 10.4 4a6.4 6.4 0 0 0 9.6 9.6z',
  text: 'M6 3.5h8.5L19 8v12.5H6zM14 3.5V8.5h5M9 13h7M9 16.5h5',
  rich: 'M6 3.5h8.5L19 8v12.5H6zM14 3.5V8.5h5M9.5 12h6M12.5 12v5.5',
  plus: 'M12 5v14M5 12h14',
  search: 'M10.5 4.5a6 6 0 1 0 0 12a6 6 0 1 0 0-12M15 15l5 5',
  arrow: 'M9.5 5.5L16 12l-6.5 6.5',
  close: 'M6 6l12 12M18 6L6 18',
  retry: 'M19.5 12a7.5 7.5 0 1 1-2.2-5.3L19.5 9M19.5 4.5V9H15',
  undo: 'M8.5 5L4.5 9l4 4M4.5 9H14a5.5 5.5 0 0 1 0 11h-3.5',
  redo: 'M15.5 5l4 4l-4 4M19.5 9H10a5.5 5.5 0 0 0 0 11h3.5',
  bold: 'M7.5 5h5.2a3.4 3.4 0 0 1 0 6.8H7.5zM7.5 11.8h6a3.6 3.6 0 0 1 0 7.2h-6z',
  italic: 'M10.5 5H17M7 19h6.5M14 5l-4 14',
  strike:
    'M4.5 12h15M16.5 8c-.3-1.8-2-3-4.4-3C9.6 5 8 6.3 8 8.2c0 1.6.9 2.7 2.6 3.4M7.5 16c.4 1.9 2.1 3 4.6 3c2.7 0 4.4-1.3 4.4-3.4c0-.6-.1-1-.3-1.5',
  'bullet-list': 'M9.5 6h10.5M9.5 12h10.5M9.5 18h10.5M4.7 6v.1M4.7 12v.1M4.7 18v.1',
  'ordered-list':
    'M10.5 6h9.5M10.5 12h9.5M10.5 18h9.5M4 4.5l1.5-.7v5M3.7 14.6c0-1.8 2.8-1.8 2.8-.2c0 1.2-2.8 2.2-2.8 3.8h3',
  quote: 'M4.5 5v14M9 8h11M9 12h11M9 16h7',
  code: 'M8.5 7L3.5 12l5 5M15.5 7l5 5l-5 5',
  'code-block': 'M4 4.5h16v15H4zM9.5 9.5L7 12l2.5 2.5M14.5 9.5L17 12l-2.5 2.5',
  lock: 'M6 11h12v9H6zM8.5 11V8a3.5 3.5 0 0 1 7 0v3',
  pencil: 'M4.5 19.5l1-4L16 5l3 3L8.5 18.5z',
} as const;

export type IconName = keyof typeof ICONS;

/** An icon in the colour of the text. Hidden from screen readers: the words beside it say it. */
export function icon(name: IconName): SVGSVGElement {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  svg.setAttribute('viewBox', '0 0 24 24');
  svg.setAttribute('class', `icon icon-${name}`);
  svg.setAttribute('aria-hidden', 'true');
  const path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
  path.setAttribute('d', ICONS[name]);
  svg.append(path);
  return svg;
}

/** The mark: two carets, one of them with its name flag. */
export function logo(): SVGSVGElement {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  svg.setAttribute('viewBox', '0 0 32 32');
  svg.setAttribute('class', 'logo');
  svg.setAttribute('aria-hidden', 'true');
  const parts: readonly (readonly [string, string])[] = [
    ['logo-tile', 'M8 0h16a8 8 0 0 1 8 8v16a8 8 0 0 1-8 8H8a8 8 0 0 1-8-8V8a8 8 0 0 1 8-8z'],
    ['logo-first', 'M11 8v16'],
    ['logo-flag', 'M12.5 6.5h6a1.5 1.5 0 0 1 1.5 1.5v3a1.5 1.5 0 0 1-1.5 1.5h-6z'],
    ['logo-second', 'M22 16v8'],
  ];
  for (const [name, d] of parts) {
    const path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
    path.setAttribute('class', name);
    path.setAttribute('d', d);
    svg.append(path);
  }
  return svg;
}
