export class Marked {
  constructor(options?: any);
  parse(text: string, options?: any): string;
}
