// Call a server with one client library: chat, stream, tool call. Prints what came back as JSON.
//
//     node clients.mjs CLIENT http://127.0.0.1:8080/v1

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, stepCountIs, streamText, tool } from "ai";
import OpenAI from "openai";
import { z } from "zod";

const [, , name, baseURL] = process.argv;
const apiKey = "sw-key-of-tests";
const model = "m";
const prompt = "Say hello.";

async function withOpenAI() {
  const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
  const messages = [{ role: "user", content: prompt }];
  const chat = await client.chat.completions.create({ model, messages });
  let stream = "";
  const parts = await client.chat.completions.create({ model, messages, stream: true });
  for await (const part of parts) stream += part.choices[0]?.delta?.content ?? "";
  const parameters = { type: "object", properties: { city: { type: "string" } } };
  const tools = [{ type: "function", function: { name: "weather", parameters } }];
  const asked = await client.chat.completions.create({ model, messages, tools });
  const call = asked.choices[0].message.tool_calls[0].function;
  return {
    chat: chat.choices[0].message.content,
    stream,
    tool: [call.name, JSON.parse(call.arguments)],
  };
}

async function withVercel() {
  const provider = createOpenAICompatible({ name: "slipway", baseURL, apiKey });
  const chat = await generateText({ model: provider(model), prompt, maxRetries: 0 });
  let stream = "";
  const streamed = streamText({ model: provider(model), prompt, maxRetries: 0 });
  for await (const text of streamed.textStream) stream += text;
  let called = null;
  const weather = tool({
    description: "The weather of a city",
    inputSchema: z.object({ city: z.string() }),
    execute: async (input) => {
      called = ["weather", input];
      return "sunny";
    },
  });
  await generateText({
    model: provider(model),
    prompt: "What is the weather in Oslo?",
    tools: { weather },
    stopWhen: stepCountIs(2),
    maxRetries: 0,
  });
  return { chat: chat.text, stream, tool: called };
}

const clients = { openai: withOpenAI, vercel: withVercel };
console.log("\n" + JSON.stringify(await clients[name]()));
