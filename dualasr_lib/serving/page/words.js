// All that the page says, in English and Japanese.
export const WORDS = {
  en: {
    other: "日本語", listen: "Listen", stop: "Stop", choose: "Recording…", copy: "Copy", clear: "Clear",
    txt: "Text file", srt: "Subtitles", token: "Token", enter: "Enter", level: "Level", input: "Input",
    hint: "Grey words are heard while you speak; black ones have been heard again, as a sentence. Nothing is stored. Keys: L listen or stop, C copy.",
    idle: "Ready.", asking: "Waiting for the microphone…", connecting: "Connecting…", listening: "Listening…",
    finishing: "Finishing…", copied: "Copied.", sending: "Sending the recording…",
    again: "The connection was lost. Next try in {0} s.", denied: "The page may not use the microphone: allow it in the browser.",
    missing: "There is no microphone.", insecure: "Browsers give the microphone to https and localhost only.",
    slow: "The network is too slow for live audio.", failed: "It did not work: {0}",
    gone: "The server does not answer.", needed: "The server wants its token.", heard: "{0} of {1} s",
  },
  ja: {
    other: "English", listen: "開始", stop: "停止", choose: "録音ファイル…", copy: "コピー", clear: "消去",
    txt: "テキスト保存", srt: "字幕保存", token: "トークン", enter: "送信", level: "音量", input: "入力",
    hint: "灰色は話している間の文字、黒は文の終わりに聞き直した文字です。何も保存しません。キー：L 開始・停止、C コピー。",
    idle: "準備ができました。", asking: "マイクを待っています…", connecting: "接続しています…", listening: "聞いています…",
    finishing: "仕上げています…", copied: "コピーしました。", sending: "録音を送っています…",
    again: "接続が切れました。{0} 秒後に再接続します。", denied: "マイクが許可されていません。ブラウザーで許可してください。",
    missing: "マイクが見つかりません。", insecure: "マイクは https か localhost でのみ使えます。",
    slow: "通信が遅すぎます。", failed: "失敗しました：{0}",
    gone: "サーバーが応答しません。", needed: "トークンが必要です。", heard: "{1} 秒中 {0} 秒",
  },
};
