// What is kept in the browser between visits, where the browser allows it.

type Place = 'localStorage' | 'sessionStorage';

/** Keeps `value`, or removes it when it is `null`. */
export function remember(place: Place, key: string, value: string | null): void {
  try {
    if (value === null) window[place].removeItem(key);
    else window[place].setItem(key, value);
  } catch {
    // Private windows may refuse. The value lives as long as the page then.
  }
}

/** What was kept, or `null`. */
export function recall(place: Place, key: string): string | null {
  try {
    return window[place].getItem(key);
  } catch {
    return null;
  }
}
