// Texts made of words that each occur once, so that a lost and a doubled one are found.

/** The words of a text: what ends in a semicolon. What does not is a word too, a broken one. */
export function words(text: string): string[] {
  return text === '' ? [] : text.split(/(?<=;)/);
}
