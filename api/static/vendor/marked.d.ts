export class Marked {
  constructor(options?: any);
  lexer(text: string): any[];
  parser(tokens: any[]): string;
}
