// SPDX-License-Identifier: Apache-2.0
// dcmjs's dicomweb-client under node: task as JSON on stdin, answer on stdout.
const fs = require("fs");
const { XMLHttpRequest } = require("xhr2");
const { api } = require("dicomweb-client");

// Browsers send "Accept: */*" where a page sets none; xhr2 sends nothing.
globalThis.XMLHttpRequest = class extends XMLHttpRequest {
  open(...given) {
    this.accepts = false;
    super.open(...given);
  }
  setRequestHeader(name, value) {
    this.accepts ||= name.toLowerCase() === "accept";
    super.setRequestHeader(name, value);
  }
  send(data) {
    if (!this.accepts) super.setRequestHeader("Accept", "*/*");
    super.send(data);
  }
};

const hex = (buffer) => Buffer.from(buffer).toString("hex");

async function main(task) {
  const client = new api.DICOMwebClient({ url: task.url });
  const series = { studyInstanceUID: task.study, seriesInstanceUID: task.series };
  const one = { ...series, sopInstanceUID: task.instance };
  const frames = (mediaType, transferSyntaxUID) =>
    client.retrieveInstanceFrames({
      ...one,
      frameNumbers: task.frames,
      mediaTypes: [{ mediaType, transferSyntaxUID }],
    });
  const studies = await client.searchForStudies({
    queryParams: { ModalitiesInStudy: "SM", StudyInstanceUID: task.study, limit: 5, offset: 0 },
  });
  const found = await client.searchForInstances({ ...series, queryParams: { includefield: "all" } });
  const metadata = await client.retrieveSeriesMetadata(series);
  const rendered = await client.retrieveInstanceFramesRendered({
    ...one,
    frameNumbers: [task.frames[0]],
    mediaTypes: [{ mediaType: "image/png" }],
  });
  const whole = await client.retrieveInstance(one);
  const stored = await client.storeInstances({ datasets: [whole] });
  return {
    studies: studies.map((item) => item["0020000D"].Value[0]),
    series: (await client.searchForSeries(series)).map((item) => item["0020000E"].Value[0]),
    instances: found.length,
    metadata: metadata.map((item) => item["00080018"].Value[0]),
    stored_as_they_are: (await frames("application/octet-stream", "*")).map(hex),
    jpeg: (await frames("image/jpeg", "1.2.840.10008.1.2.4.50")).map(hex),
    native: (await frames("application/octet-stream", "1.2.840.10008.1.2.1")).map((b) => b.byteLength),
    rendered: rendered.map(hex),
    instance: hex(whole),
    whole_series: (await client.retrieveSeries(series)).length,
    stored,
  };
}

main(JSON.parse(fs.readFileSync(0))).then(
  (answer) => console.log(JSON.stringify(answer)),
  (error) => {
    console.error(error.stack, error.status, error.response && hex(error.response));
    process.exit(1);
  },
);
