// Copies a text. The clipboard API exists only on https and localhost; elsewhere the browser copies the selected field.

/**
 * Returns whether the text of a field was copied. If not, the text is selected, so that the user can copy it.
 * @param {HTMLTextAreaElement} field
 */
export async function copyField(field) {
  field.focus();
  field.select();
  try {
    await navigator.clipboard.writeText(field.value);
    return true;
  } catch {
    return document.execCommand("copy");
  }
}
