// The official SDK of OpenAI for Node, through the gateway. Prints what came of each call as one document.
import { createRequire } from "node:module";

const [url, key, from] = process.argv.slice(2);
const { default: OpenAI, APIError } = createRequire(from + "/")("openai");
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: key });
const messages = [{ role: "user", content: "Say hello." }];
const said = {};

async function failure(call) {
  try {
    await call();
  } catch (error) {
    if (!(error instanceof APIError)) throw error;
    return { kind: error.constructor.name, status: error.status, code: error.code };
  }
  return null;
}

const chat = await client.chat.completions.create({ model: "gpt-5-mini", messages, max_tokens: 20 });
said.chat = { text: chat.choices[0].message.content, output: chat.usage.completion_tokens };

said.stream = { text: "", usage: false, finish: null };
for await (const chunk of await client.chat.completions.create({ model: "gpt-5-mini", messages, max_tokens: 20, stream: true })) {
  const choice = chunk.choices[0];
  said.stream.text += choice?.delta.content ?? "";
  said.stream.finish = choice?.finish_reason ?? said.stream.finish;
  said.stream.usage ||= Boolean(chunk.usage);
}

said.stream_with_usage = [];
const asking = { model: "gpt-5-mini", messages, max_tokens: 20, stream: true, stream_options: { include_usage: true } };
for await (const chunk of await client.chat.completions.create(asking)) {
  if (chunk.usage) said.stream_with_usage.push(chunk.usage.completion_tokens);
}

const embeddings = await client.embeddings.create({ model: "text-embedding-3-small", input: ["one", "two"] });
said.embeddings = embeddings.data.map((one) => one.embedding.length);

const response = await client.responses.create({ model: "gpt-5-mini", input: "Say hello.", max_output_tokens: 20 });
said.responses = response.output_text;

said.refused = await failure(() => client.chat.completions.create({ model: "tiny", messages, max_tokens: 500 }));
said.broken = await failure(() => client.chat.completions.create({ model: "breaks", messages, max_tokens: 20 }));
said.again = [];
for (let call = 0; call < 2; call++) {
  const answer = await client.chat.completions.create({ model: "again", messages, max_tokens: 20 });
  said.again.push(answer.usage.completion_tokens);
}
const stranger = new OpenAI({ baseURL: `${url}/v1`, apiKey: "nobody" });
said.stranger = await failure(() => stranger.chat.completions.create({ model: "gpt-5-mini", messages }));
console.log(JSON.stringify(said));
