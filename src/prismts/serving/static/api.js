// Requests to the server of this page; every address lies below the one of the page, which holds the session's token.
const base = new URL(".", location.href);

export class Refusal extends Error {}

async function answer(request) {
  let response;
  try {
    response = await request;
  } catch {
    throw new Refusal("The server does not answer. Is prism studio still running in its terminal?");
  }
  let value = null;
  try {
    value = await response.json();
  } catch {
    value = null;
  }
  if (!response.ok) throw new Refusal(value?.error || `The server answered with an error (${response.status}).`);
  return value;
}

export const address = (path) => new URL(path, base).href;

export const get = (path) => answer(fetch(address(path), { signal: AbortSignal.timeout(120_000) }));

export const post = (path, body) =>
  answer(fetch(address(path), { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) }));

// the progress of an upload is told by XMLHttpRequest alone
export function upload(file, onProgress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", address(`api/upload?name=${encodeURIComponent(file.name)}`));
    request.upload.addEventListener("progress", (event) => event.lengthComputable && onProgress(event.loaded / event.total));
    request.addEventListener("error", () => reject(new Refusal("The upload was broken off. If the file is very large, it was refused; otherwise see whether prism studio still runs.")));
    request.addEventListener("load", () => {
      let value = null;
      try {
        value = JSON.parse(request.responseText);
      } catch {
        value = null;
      }
      if (request.status === 200) resolve(value);
      else reject(new Refusal(value?.error || `The server answered with an error (${request.status}).`));
    });
    request.setRequestHeader("content-type", "application/octet-stream");
    request.send(file);
  });
}
