// Parses real answers and requests by the schemas that orval made; each has to come out as it went in.
import { readFileSync, writeFileSync } from "node:fs";
import * as schemas from "./zod.ts";

type Parser = { parse: (value: unknown) => unknown };
const parsers = schemas as unknown as Record<string, Parser>;
const samples: Record<string, unknown> = JSON.parse(readFileSync("samples.json", "utf8"));
const parsed: Record<string, unknown> = {};
for (const [name, value] of Object.entries(samples)) {
  const parser = parsers[name];
  if (parser === undefined) {
    const like = Object.keys(parsers).filter((made) => made.toLowerCase().startsWith(name.slice(0, 8).toLowerCase()));
    throw new Error(`orval made no ${name}, but ${like.join(" ")}`);
  }
  try {
    parsed[name] = parser.parse(value);
  } catch (error) {
    throw new Error(`${name}: ${error}`);
  }
}
writeFileSync("parsed.json", JSON.stringify(parsed));
