"""The Telegram door: a bot that hears allowed chats by long polling and answers them."""
