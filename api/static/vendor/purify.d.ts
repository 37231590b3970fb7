declare const DOMPurify: {
  sanitize(dirty: string, options: any): DocumentFragment;
  addHook(name: string, hook: (node: Element) => void): void;
};
export default DOMPurify;
