// The caret of somebody else, with a name flag that fades when the caret rests.
import type { CheckedAwareness, CheckedState } from './checked-awareness.ts';
import { type Cleanup, h } from './dom.ts';
import { paint } from './person.ts';

/** Makes the caret. It takes no room, so that text does not move when people come and go. */
export function caretElement(user: CheckedState['user']): HTMLElement {
  const element = h(
    'span',
    { class: 'caret', 'data-caret': user.clientId, 'aria-hidden': 'true' },
    // The name is drawn from the attribute: as text it would be part of what is copied and searched.
    h('span', { class: 'caret-flag', 'data-name': user.name }),
  );
  paint(element, user);
  return element;
}

/** Shows the flag again whenever its caret moves, and follows changes of name and colour. */
export function followCarets(host: HTMLElement, awareness: CheckedAwareness): Cleanup {
  const changed = ({ updated }: { readonly updated: readonly number[] }) => {
    const states = awareness.getStates();
    for (const id of updated) {
      const user = states.get(id)?.user;
      if (!user) continue;
      for (const caret of host.querySelectorAll<HTMLElement>(`[data-caret="${id}"]`)) {
        paint(caret, user);
        const flag = caret.querySelector<HTMLElement>('.caret-flag');
        if (!flag) continue;
        flag.dataset.name = user.name;
        for (const animation of flag.getAnimations()) {
          animation.currentTime = 0;
          animation.play();
        }
      }
    }
  };
  awareness.on('change', changed);
  return () => awareness.off('change', changed);
}
